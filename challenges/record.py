"""What is published and never changes: locked values by version of the rules, and releases.

Nothing here needs more than Python, since every SuperNode reads it.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

_PUBLISHED = files(__name__.rpartition(".")[0]) / "published"
LIBRARY = "library.json"


def published(rules: str, version: str) -> dict[str, dict[str, str | int]]:
    """The record of one version of a rule set: challenge -> locked values; empty if there is none.

    A record never changes, but for challenges that are added to it.
    """
    return _read(f"{rules}-{version}.json")


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
