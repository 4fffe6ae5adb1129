"""What a run writes about itself for people and tools."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowertune.base.files import write_atomically

RUN, ROUNDS, LEDGER = "run.json", "rounds.jsonl", "ledger.jsonl"


def now() -> str:
    """Return the time of day in UTC, in ISO form, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_run(folder: Path, body: Mapping[str, Any]) -> None:
    """Write run.json anew, whole."""
    write_atomically(folder / RUN, json.dumps(dict(body), indent=2, sort_keys=True) + "\n")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write a JSONL file anew, whole."""
    write_atomically(path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL file; one that is not there has no lines."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
