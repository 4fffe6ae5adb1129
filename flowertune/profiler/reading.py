"""Read a profile back: from the text of a run's log, or of its profile.jsonl."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowertune.profiling.format import MARK, VERSION
from flowertune.profiling.phases import Span
from flowertune.profiling.records import from_row


@dataclass
class Sitting:
    """One process that wrote a profile; a run that was resumed has several.

    ``end`` and ``status`` are None while it goes on, or where it was killed. ``lost`` counts lines
    that are missing or cannot be read.
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
        """How long it lasted, as far as is known."""
        last = max((span.until for span in self.spans), default=self.start)
        return (last if self.end is None else max(last, self.end)) - self.start


class Reader:
    """Takes text in pieces of any size, and keeps what it says of a profile in ``sittings``.

    ``mark`` is what a line of a profile starts with: ``MARK`` in a log, nothing in a file.
    """

    def __init__(self, mark: str = MARK) -> None:
        self._mark = mark
        self.sittings: list[Sitting] = []
        self._rest = ""

    def feed(self, text: str) -> bool:
        """Take in a piece of text; return whether there was a whole line of a profile in it."""
        *lines, self._rest = (self._rest + text).split("\n")
        return any([self._line(line) for line in lines])

    @property
    def ended(self) -> bool:
        """Whether the last sitting says that it has ended."""
        return bool(self.sittings) and self.sittings[-1].status is not None

    def _line(self, line: str) -> bool:
        # In a log, another thread's text may stand before or behind.
        begin = line.find(self._mark + "{")
        if begin < 0:
            return False
        begin += len(self._mark)
        try:
            body, _ = json.JSONDecoder().raw_decode(line, begin)
            return self._take(body)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return False

    def _take(self, body: dict[str, Any]) -> bool:
        number = int(body["line"])
        if "start" in body:
            if body["version"] != VERSION:
                raise ValueError(f"version {body['version']} of a profile is not known here")
            self.sittings.append(Sitting(float(body["start"]), dict(body["facts"])))
            return True
        sitting = self.sittings[-1] if self.sittings else Sitting(0.0, {})
        if number < sitting.expected:
            return False
        sitting.lost += number - sitting.expected
        sitting.expected = number + 1
        if "end" in body:
            sitting.end, sitting.status = sitting.start + float(body["end"]), str(body["status"])
        for row in body.get("rows", ()):
            try:
                sitting.spans.append(from_row(row, sitting.start))
            except (ValueError, TypeError, OverflowError):
                sitting.lost += 1
        return True


def joined(sittings: Sequence[Sitting]) -> tuple[list[Span], list[float], float]:
    """Return spans with times from 0, where later sittings begin, and the length of all.

    What lies between a run and its continuation is left out.
    """
    spans, starts, offset = [], [], 0.0
    for sitting in sittings:
        starts.append(offset)
        for span in sitting.spans:
            spans.append(replace(span, at=span.at - sitting.start + offset))
        offset += sitting.seconds
    return spans, starts[1:], offset


def read_file(path: Path) -> list[Sitting]:
    """Return the sittings in a profile.jsonl; none if there is no such file.

    A last line that is only half there yet is left out.
    """
    reader = Reader(mark="")
    try:
        reader.feed(path.read_text("utf-8", errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return reader.sittings
