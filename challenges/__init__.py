"""The facts of each challenge: one YAML file each, and the few functions that read them.

The template gets the same files through Copier; `evaluation` gets them from here. Nothing in this
package imports the app.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

_DATA = files(__name__)
_NOT_A_CHALLENGE = {"rules.yml"}


def names() -> list[str]:
    """Names of all challenges, the base example included, in alphabetical order."""
    return sorted(
        entry.name.removesuffix(".yml")
        for entry in _DATA.iterdir()
        if entry.name.endswith(".yml") and entry.name not in _NOT_A_CHALLENGE
    )


def load(name: str) -> dict[str, Any]:
    """Facts of one challenge, as in `challenges/<name>.yml`.

    Raises ValueError, with the names there are, if there is no such challenge.
    """
    if name not in names():
        raise ValueError(
            f"There is no challenge {name!r}; the challenges are {', '.join(names())}."
        )
    return _read(f"{name}.yml")


def rule_sets() -> dict[str, Any]:
    """Rule sets of `challenges/rules.yml`: name -> {version, partitioner, budget-mib, digests}."""
    return _read("rules.yml")


def static_table(name: str, rules: str) -> dict[str, str | int]:
    """Locked values of a challenge under a rule set: `[tool.flwr.app.config.static]`, flat.

    Raises ValueError, with what there is, for an unknown challenge or rule set.
    """
    facts = load(name)
    sets = rule_sets()
    if rules not in sets:
        raise ValueError(
            f"There are no rules {rules!r}; the rule sets are {', '.join(sorted(sets))}."
        )
    dataset = facts["dataset"]
    return {
        "challenge": name,
        "rules": rules,
        "rules-version": sets[rules]["version"],
        "num-supernodes": facts["supernodes"][rules],
        "dataset.name": dataset["name"],
        "dataset.revision": dataset["revision"],
        "dataset.question": dataset["question"],
        "dataset.answer": dataset["answer"],
        "partitioner.name": sets[rules]["partitioner"],
        "budget-mib": sets[rules]["budget-mib"],
    }


def digest(static: Mapping[str, object]) -> str:
    """SHA-256, in hex, of a flat static table; the order of its keys does not matter.

    The app has these lines too, as it cannot import this package; a test compares the two.
    """
    text = json.dumps(dict(static), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def expected_digest(name: str, rules: str) -> str:
    """The digest on record in `challenges/rules.yml`; KeyError if there is none."""
    return rule_sets()[rules]["digests"][name]


def sample(name: str) -> Traversable:
    """The quickstart's training rows: JSONL with columns instruction, input, output."""
    return _DATA / "samples" / f"{name}.jsonl"


@cache
def _text(filename: str) -> str:
    return (_DATA / filename).read_text(encoding="utf-8")


def _read(filename: str) -> dict[str, Any]:
    # Parsed anew each time: a caller that changes its copy changes nobody else's.
    return yaml.safe_load(_text(filename))
