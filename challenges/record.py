"""What is published and never changes: locked values by version of the rules, and releases.

Nothing here needs more than Python, since every SuperNode reads it.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

_PUBLISHED = files(__name__.rpartition(".")[0]) / "published"
LIBRARY = "library.json"
EVALUATION_DATA = "evaluation-data"
PINNED = "pinned"
CONVERGENCE = "convergence"
_NO_TABLES = (EVALUATION_DATA, PINNED)


def published(rules: str, version: str) -> dict[str, dict[str, str | int]]:
    """The record of one version of a rule set: challenge -> locked values; empty if there is none.

    A record never changes, but for challenges that are added to it.
    """
    tables = _read(f"{rules}-{version}.json")
    return {name: table for name, table in tables.items() if name not in _NO_TABLES}


def evaluation_data(rules: str, version: str) -> dict[str, dict[str, str]]:
    """What identifies the rows that a version of a rule set is scored on.

    Challenge -> evaluation set -> sha256 of its rows, as the scorer computes it; empty where the
    version records none, and then no file that somebody brings counts as the official one.
    `python -m challenges.pin` writes them, under "evaluation-data" of
    challenges/published/<rules>-<version>.json.
    """
    return _read(f"{rules}-{version}.json").get(EVALUATION_DATA, {})


def pinned(rules: str, version: str) -> dict[str, Any]:
    """What a version of a rule set pins of data and models, by challenge; empty where it does not.

    Written by `python -m challenges.pin`. Of a challenge:
    "training": name, revision (a commit), files, rows, unique-rows, sha256 (of all rows in their
    own order), partitions (number of SuperNodes, as a text -> sha256 of each partition's rows);
    "evaluation": set -> name, revision, files, rows, documents-sha256 (questions and targets as the
    official suite asks them);
    "model", the default base model: name, revision, files.
    "files" are all files of the repository at that commit: path -> bytes, and sha256 or (of small
    ones) git-sha1.
    """
    return _read(f"{rules}-{version}.json").get(PINNED, {})


def convergence(rules: str, version: str) -> dict[str, Any]:
    """The curves of reference runs under a version of a rule set; empty where none are published.

    As `python -m evaluation.reference` writes them to
    challenges/published/<rules>-<version>-convergence.json.
    """
    return _read(f"{rules}-{version}-{CONVERGENCE}.json")


def library() -> dict[str, str]:
    """The record of releases: version -> sha256 of the library's files."""
    return _read(LIBRARY)


def library_digest(version: str) -> str | None:
    """The sha256 of the library's files in the release of this version; None if it has none."""
    return library().get(version)


def _read(name: str) -> dict[str, Any]:
    # Parsed anew each time: a caller that changes its copy changes nobody else's.
    return json.loads(_text(name))


@cache
def _text(name: str) -> str:
    record = _PUBLISHED / name
    if "/" in name or "\\" in name or not record.is_file():
        return "{}"
    return record.read_text(encoding="utf-8")
