"""Small rules as if they were published: four SuperNodes, six rows a set, this checkout a release.

So a run of a second and its score are official in everything that is compared.
"""

import atexit
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml

import challenges
from challenges import record
from evaluation import data, finance
from evaluation.columns import core
from flowertune.base.hashing import json_sha256
from flowertune.rules.provenance import Library, digest_of, library_files
from tests.tiny import save_tiny_llama

FINANCE = finance.CHALLENGE
RULES, VERSION = "50-supernodes", "1.0.0"
NODES, ROWS = 4, 6
RELEASE = "1.0.0"
ANSWER_TOKENS = 6  # of the tiny model's generation_config, which the official suite follows


@dataclass(frozen=True)
class SmallRules:
    """What the small rules lock, in a folder that goes away with the process.

    Attributes:
        folder: of everything below.
        model: the challenge's default base model, a tiny one.
        rows: the training set, a JSONL file.
        evaluation: a file for each set, to be given with --data-dir.
        facts: of the finance challenge.
        published: the record of rules and releases.
    """

    folder: Path
    model: Path
    rows: Path
    evaluation: Path
    facts: dict[str, Any]
    published: Path


@cache
def small_rules() -> SmallRules:
    """The small rules; made once in a process."""
    folder = Path(mkdtemp(prefix="small-rules-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    model = save_tiny_llama(folder / "model", width=128)  # 4-bit blocks are of 64
    settings = json.loads((model / "generation_config.json").read_text())
    settings["max_new_tokens"] = ANSWER_TOKENS
    (model / "generation_config.json").write_text(json.dumps(settings))
    rows = folder / "rows.jsonl"
    line = '{{"instruction": "Add one.", "input": "{0}", "output": "{1}"}}\n'
    rows.write_text("".join(line.format(i, i + 1) for i in range(40)))

    evaluation, hashes = folder / "evaluation", {}
    evaluation.mkdir()
    for item in FINANCE.sets:
        lines = (data.SAMPLES / "finance" / item.file).read_text("utf-8").splitlines()[:ROWS]
        (evaluation / item.file).write_text("\n".join(lines) + "\n", "utf-8")
        hashes[item.name] = json_sha256([core(item.columns, json.loads(x)) for x in lines])

    facts = challenges.load("finance")
    facts["model"] = str(model)
    facts["dataset"]["name"] = str(rows)
    facts["supernodes"] = {**facts["supernodes"], RULES: NODES}
    for entry in facts["evaluation"]["sets"]:
        entry["rows"] = ROWS
    published = folder / "published"
    shutil.copytree(Path(str(record._PUBLISHED)), published)
    file = published / f"{RULES}-{VERSION}.json"
    tables = json.loads(file.read_text())
    tables["finance"] |= {"num-supernodes": NODES, "dataset.name": str(rows)}
    tables[record.EVALUATION_DATA] = {"finance": hashes}
    file.write_text(json.dumps(tables))
    (published / record.LIBRARY).write_text(json.dumps({RELEASE: digest_of(library_files())}))
    return SmallRules(folder, model, rows, evaluation, facts, published)


@contextmanager
def on_record() -> Iterator[SmallRules]:
    """Let the small rules be the published ones of the finance challenge, while the block lasts.

    Every digest, count and row that a checkpoint or a score is compared with is theirs.
    """
    from evaluation import provenance
    from flowertune.comms import nodes
    from flowertune.run import setup

    rules = small_rules()
    library = Library(RELEASE, json.loads((rules.published / record.LIBRARY).read_text())[RELEASE])
    facts, text = yaml.safe_dump(rules.facts), challenges._text
    record._text.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "_PUBLISHED", rules.published)
        # Fixtures of the scorer's tests put another release on record.
        patch.setattr(record, "library", lambda: record._read(record.LIBRARY))
        patch.setattr(challenges, "_text", lambda n: facts if n == "finance.yml" else text(n))
        for module in (provenance, nodes, setup):
            patch.setattr(module, "installed_library", lambda: library)
        sets = [replace(item, whole=ROWS, pick=lambda rows: rows) for item in FINANCE.sets]
        patch.setattr(finance, "CHALLENGE", replace(FINANCE, sets=sets))
        try:
            yield rules
        finally:
            record._text.cache_clear()
