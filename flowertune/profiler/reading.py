"""Read a profile from its profile.jsonl."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import parse_json, read_text
from flowertune.base.text import one_line
from flowertune.profiling.format import VERSION
from flowertune.profiling.phases import Span
from flowertune.profiling.records import from_row


@dataclass
class Attempt:
    """What one server process wrote of a run; a run that was resumed has several.

    ``end`` and ``status`` are None while the process runs, or where it was killed. ``lost`` counts
    missing and unreadable lines and rows.
    """

    start: float
    facts: dict[str, Any]
    spans: list[Span] = field(default_factory=list)
    end: float | None = None
    status: str | None = None
    lost: int = 0
    expected: int = 1

    @property
    def seconds(self) -> float:
        """Its duration, as far as it is known."""
        last = max((span.until for span in self.spans), default=self.start)
        return (last if self.end is None else max(last, self.end)) - self.start


class Reader:
    """Takes in text in pieces of any size, and collects the profile in it in ``attempts``."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self._rest = ""

    def feed(self, text: str) -> bool:
        """Take in a piece of text; return whether it completed a line of a profile."""
        *lines, self._rest = (self._rest + text).split("\n")
        return any([self._line(line) for line in lines])

    @property
    def ended(self) -> bool:
        """Whether the last attempt has ended."""
        return bool(self.attempts) and self.attempts[-1].status is not None

    def _line(self, line: str) -> bool:
        try:
            return self._take(parse_json(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return False

    def _take(self, body: dict[str, Any]) -> bool:
        number = int(body["line"])
        if "start" in body:
            if body["version"] != VERSION:
                raise ValueError(f"version {body['version']} of a profile is not supported")
            self.attempts.append(Attempt(_time(body, "start"), dict(body["facts"])))
            return True
        attempt = self.attempts[-1] if self.attempts else Attempt(0.0, {})
        if number < attempt.expected:
            return False
        attempt.lost += number - attempt.expected
        attempt.expected = number + 1
        if "end" in body:
            attempt.end, attempt.status = attempt.start + _time(body, "end"), str(body["status"])
        for row in body.get("rows", ()):
            try:
                attempt.spans.append(from_row(row, attempt.start))
            except (ValueError, TypeError, OverflowError):
                attempt.lost += 1
        return True


def _time(body: Mapping[str, Any], key: str) -> float:
    seconds = float(body[key])
    if not math.isfinite(seconds):
        raise ValueError(f"{key} is {seconds}")
    return seconds


def joined(attempts: Sequence[Attempt]) -> tuple[list[Span], list[float], float]:
    """Return all spans with times from 0, the times where later attempts begin, and the duration.

    The pauses between attempts are left out.
    """
    spans, starts, offset = [], [], 0.0
    for attempt in attempts:
        starts.append(offset)
        for span in attempt.spans:
            spans.append(replace(span, at=span.at - attempt.start + offset))
        offset += attempt.seconds
    return spans, starts[1:], offset


def read_file(path: Path) -> list[Attempt]:
    """Return the attempts in a profile.jsonl; none if there is no such file.

    An incomplete last line is left out.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    reader = Reader()
    try:
        reader.feed(read_text(path, errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(path, error) from None
    return reader.attempts


def unreadable(path: Path, error: OSError) -> UserError:
    """Return the error for a profile that cannot be read."""
    return UserError(
        f"The profile {path} cannot be read: {one_line(error.strerror or error)}; move it away, or "
        "mend it."
    )
