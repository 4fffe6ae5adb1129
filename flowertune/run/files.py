"""The files of a run's folder: written while it goes on, read by every tool.

run.json says what the run is, rounds.jsonl has a line for each finished round, ledger.jsonl one
for each message.
"""

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import parse_json, read_json, read_jsonl, read_text
from flowertune.base.text import one_line

RUN, ROUNDS, LEDGER = "run.json", "rounds.jsonl", "ledger.jsonl"
LOCK, PROGRESS = ".lock", "progress.json"
LOCKS = Path("/proc/locks")
NUMBER = (int, float)
# What may be missing, and is of this type where it is there.
ABOUT: dict[str, Any] = {
    "rounds": int, "budget-mib": NUMBER, "settings": dict, "differences": list, "data": dict,
}  # fmt: skip
LINE: dict[str, Any] = {
    "round": int, "clients": int, "failed": int, "asked": int, "train-loss": NUMBER,
    "learning-rate": NUMBER, "tokens": NUMBER, "seconds": NUMBER, "total-mib": NUMBER,
    "partitions": list, "lost": dict, "bytes-down": NUMBER, "bytes-up": NUMBER,
    "residual": NUMBER, "residuals": dict, "drift": NUMBER,
    "held-out-loss": NUMBER, "held-out-rows": int, "held-out-asked": int, "held-out-lost": dict,
    "held-out-replies": dict,     "chosen": dict,
}  # fmt: skip
MOST = 10**15  # numbers of a run are far below
RECENT = 5


def now() -> str:
    """Return the time of day in UTC, in ISO form, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class UnreadableRun(UserError):
    """A folder is not that of a run, or a file in it is damaged."""


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder says: the content of run.json, and a line for each finished round.

    Attributes
    ----------
    alive : bool | None
        Whether a process here holds the folder; None where that is unknown.
    resuming : bool
        Whether that process began after run.json was written: it is about to go on with the run.
    progress : dict[str, Any]
        What the run does just now (see ``run.live``); empty where that is unknown.
    """

    folder: Path
    about: dict[str, Any]
    rounds: list[dict[str, Any]]
    alive: bool | None = None
    resuming: bool = False
    progress: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """running, finished, failed, stopped; or interrupted: it says running, and none does."""
        status = str(self.about.get("status", "unknown"))
        if self.resuming:
            return "running"
        return "interrupted" if status == "running" and self.alive is False else status

    @property
    def verdict(self) -> str:
        """official or unofficial; or not yet checked, before the SuperNodes have answered."""
        if "official" not in self.about:
            return "not yet checked"
        return "official" if self.about["official"] is True else "unofficial"

    @property
    def planned(self) -> int:
        """How many rounds the run is to have."""
        planned = self.about.get("rounds")
        return planned if isinstance(planned, int) else len(self.rounds)

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

    A last line of rounds.jsonl that is only half there yet is left out, and so are values that are
    null or not finite.

    Raises
    ------
    UnreadableRun
        If the folder is not that of a run, or a file in it is damaged.
    """
    about = folder / RUN
    try:
        body = parse_json(read_text(about))
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableRun(
            f"{folder} holds no {RUN}, so it is not the folder of a run; name one like "
            "results/<run id>."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableRun(f"{about} is damaged: {one_line(error)}.") from None
    if not isinstance(body, dict):
        raise UnreadableRun(f"{about} is damaged: it holds no JSON object.")
    body = _checked(about, body, ABOUT)
    alive = _held(folder / LOCK)
    resuming = alive is True and _newer(folder / LOCK, about)
    progress = _progress(folder / PROGRESS) if alive is not False else {}
    return RunFiles(folder, body, _rounds(folder / ROUNDS), alive, resuming, progress)


def since(line: dict[str, Any], now: datetime | None = None) -> float | None:
    """Return the seconds since a round's line was written, None where it has no time."""
    try:
        past = (now or datetime.now(UTC)) - datetime.fromisoformat(line["time"])
    except (KeyError, TypeError, ValueError):
        return None
    return max(0.0, past.total_seconds())


def _rounds(file: Path) -> list[dict[str, Any]]:
    try:
        lines = read_jsonl(file)
    except ValueError as error:
        raise UnreadableRun(f"{error}.") from None
    return [
        _checked(file, line, LINE, f"line {number}: ") for number, line in enumerate(lines, start=1)
    ]


def _checked(
    file: Path, body: dict[str, Any], kinds: dict[str, Any], where: str = ""
) -> dict[str, Any]:
    """Return what every tool can work with; refuse what no run writes."""
    sound = dict(body)
    for key, kind in kinds.items():
        value = body.get(key)
        # A loss that is not finite comes of a run that diverged, and is no damage.
        if (value is None and key != "round") or (
            isinstance(value, float) and kind is NUMBER and not abs(value) < MOST
        ):
            sound.pop(key, None)
        elif (
            isinstance(value, bool)
            or not isinstance(value, kind)
            or (isinstance(value, int) and abs(value) >= MOST)
        ):
            raise UnreadableRun(f"{file} is damaged: {where}{key} is {one_line(repr(value), 60)}.")
    if not all(isinstance(each, dict) for each in sound.get("differences", ())):
        raise UnreadableRun(f"{file} is damaged: a difference is no JSON object.")
    return sound


def _progress(file: Path) -> dict[str, Any]:
    body = read_json(file) or {}
    begun = body.get("since")
    whole = isinstance(begun, float) and math.isfinite(begun)
    whole = whole and ("round" not in body or {"done", "of", "what"} <= body.keys())
    return body if whole else {}


def _newer(lock: Path, about: Path) -> bool:
    try:
        return lock.stat().st_mtime_ns > about.stat().st_mtime_ns
    except OSError:
        return False


def _held(lock: Path) -> bool | None:
    # Taking the lock to see whether it is free could turn away a run that starts just then.
    try:
        node = f":{lock.stat().st_ino} "
        return any("FLOCK" in line and node in line for line in LOCKS.read_text().splitlines())
    except OSError:
        return None
