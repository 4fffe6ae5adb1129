"""The facts of each challenge: one YAML file each, and the few functions that read them.

The template gets the same files through Copier; the library and `evaluation` get them from here.
"""

from copy import deepcopy
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import yaml

from challenges import record

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
    """Rule sets of `challenges/rules.yml`: name -> its version, changes, values and digests."""
    return _read("rules.yml")


def static_table(name: str, rules: str, version: str | None = None) -> dict[str, str | int]:
    """Locked values of a challenge under a rule set: `[tool.flwr.app.config.static]`, flat.

    The current version of the rules is computed from the facts; an older one comes from the record
    in `challenges/published/`, since results that were made under it are scored under it.

    Raises ValueError, with what there is, for an unknown challenge, rule set or version.
    """
    rule_set = _rule_set(rules)
    if version is not None and version != rule_set["version"]:
        return _published_table(name, rules, version)
    facts = load(name)
    dataset = facts["dataset"]
    return {
        "challenge": name,
        "rules": rules,
        "rules-version": rule_set["version"],
        "num-supernodes": facts["supernodes"][rules],
        "dataset.name": dataset["name"],
        "dataset.revision": dataset["revision"],
        "dataset.question": dataset["question"],
        "dataset.answer": dataset["answer"],
        "partitioner.name": rule_set["partitioner"],
        "budget-mib": rule_set["budget-mib"],
    }


def versions(rules: str) -> list[str]:
    """All published versions of a rule set, the current one first."""
    return [change["version"] for change in _rule_set(rules)["changes"]]


def expected_digest(name: str, rules: str) -> str:
    """The digest on record in `challenges/rules.yml`; KeyError if there is none."""
    return rule_sets()[rules]["digests"][name]


def sample(name: str) -> Traversable:
    """The quickstart's training rows: JSONL with columns instruction, input, output."""
    return _DATA / "samples" / f"{name}.jsonl"


def _rule_set(rules: str) -> dict[str, Any]:
    sets = rule_sets()
    if rules not in sets:
        known = ", ".join(sorted(sets))
        raise ValueError(f"There are no rules {rules!r}; the rule sets are {known}.")
    return sets[rules]


def _published_table(name: str, rules: str, version: str) -> dict[str, str | int]:
    known = versions(rules)
    if version not in known:
        raise ValueError(
            f"There is no version {version!r} of the rules {rules}; there are {', '.join(known)}."
        )
    tables = record.published(rules, version)
    if name not in tables:
        raise ValueError(
            f"There was no challenge {name!r} under the rules {rules} {version}; "
            f"there were {', '.join(sorted(tables))}."
        )
    return tables[name]


@cache
def _text(filename: str) -> str:
    return (_DATA / filename).read_text(encoding="utf-8")


def _read(filename: str) -> dict[str, Any]:
    # A copy each time: a caller that changes its own changes nobody else's.
    return deepcopy(_parsed(_text(filename)))


@cache
def _parsed(text: str) -> dict[str, Any]:
    # A verifier of a thousand bundles asks thousands of times, and YAML takes its time.
    return yaml.safe_load(text)
