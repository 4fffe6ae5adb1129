"""What a run writes about itself for people and tools: run.json and rounds.jsonl."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowertune.connection.files import write_atomically

RUN, ROUNDS = "run.json", "rounds.jsonl"


def now() -> str:
    """Return the time of day in UTC, in ISO form, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_run(folder: Path, body: Mapping[str, Any]) -> None:
    """Write run.json anew, whole."""
    write_atomically(folder / RUN, json.dumps(dict(body), indent=2, sort_keys=True) + "\n")


def write_rounds(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Write rounds.jsonl anew, whole, one line for each round."""
    write_atomically(folder / ROUNDS, "".join(json.dumps(line) + "\n" for line in lines))
