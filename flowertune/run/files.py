"""The files of a run's folder: written while it goes on, read by every tool.

run.json says what the run is, rounds.jsonl has a line for each finished round, ledger.jsonl one
for each message.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_jsonl

RUN, ROUNDS, LEDGER = "run.json", "rounds.jsonl", "ledger.jsonl"
LOCK = ".lock"
LOCKS = Path("/proc/locks")
RECENT = 5


def now() -> str:
    """Return the time of day in UTC, in ISO form, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class UnreadableRun(UserError):
    """A folder is not that of a run, or a file in it is damaged."""


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder says: the content of run.json, and a line for each finished round."""

    folder: Path
    about: dict[str, Any]
    rounds: list[dict[str, Any]]
    alive: bool | None = None  # whether a process here holds the folder; None where unknown

    @property
    def status(self) -> str:
        """running, finished, failed; or interrupted, where nothing writes what says running."""
        status = str(self.about.get("status", "unknown"))
        return "interrupted" if status == "running" and self.alive is False else status

    @property
    def planned(self) -> int:
        """How many rounds the run is to have."""
        return int(self.about.get("rounds", len(self.rounds)))

    @property
    def last(self) -> dict[str, Any]:
        """The last finished round; empty before the first has finished."""
        return self.rounds[-1] if self.rounds else {}

    @property
    def seconds_per_round(self) -> float | None:
        """Mean of the last few rounds, None before the first."""
        recent = [line["seconds"] for line in self.rounds[-RECENT:] if "seconds" in line]
        return sum(recent) / len(recent) if recent else None

    @property
    def seconds_left(self) -> float | None:
        """What the remaining rounds take at that pace; None where it is unknown."""
        each = self.seconds_per_round
        return None if each is None else each * max(0, self.planned - self.last.get("round", 0))


def tokens_per_second(line: dict[str, Any]) -> float | None:
    """Return a round's tokens (padding not counted) by its seconds, all clients together."""
    tokens, seconds = line.get("tokens"), line.get("seconds")
    return tokens / seconds if tokens and seconds else None


def read_run(folder: Path) -> RunFiles:
    """Read a run's folder.

    A last line of rounds.jsonl that is only half there yet is left out.

    Raises
    ------
    UnreadableRun
        If the folder is not that of a run, or a file in it is damaged.
    """
    about = folder / RUN
    try:
        body = json.loads(about.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableRun(
            f"{folder} holds no {RUN}, so it is not the folder of a run; name one like "
            "results/<run id>."
        ) from None
    except ValueError as error:
        raise UnreadableRun(f"{about} is damaged: {error}.") from None
    if not isinstance(body, dict):
        raise UnreadableRun(f"{about} is damaged: it holds no JSON object.")
    return RunFiles(folder, body, _rounds(folder / ROUNDS), _held(folder / LOCK))


def since(line: dict[str, Any], now: datetime | None = None) -> float | None:
    """Return the seconds since a round's line was written, None where it has no time."""
    try:
        then = datetime.fromisoformat(line["time"])
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, ((now or datetime.now(UTC)) - then).total_seconds())


def _rounds(file: Path) -> list[dict[str, Any]]:
    try:
        return read_jsonl(file)
    except ValueError as error:
        raise UnreadableRun(f"{error}.") from None


def _held(lock: Path) -> bool | None:
    # Taking the lock to see whether it is free could turn away a run that starts just then.
    try:
        node = f":{lock.stat().st_ino} "
        return any("FLOCK" in line and node in line for line in LOCKS.read_text().splitlines())
    except OSError:
        return None
