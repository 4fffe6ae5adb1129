"""Spans as rows of JSON: how they are written, sent, logged and read again."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from flowertune.profiling.phases import Span

FEW = 25  # up to so many spans of one kind in a batch are kept one by one
STEP = math.log(1.02)  # a bin's width: percentiles of folded spans are off by at most 1 %
SHORTEST, LONGEST = 1e-7, 1e10  # seconds that the histogram tells apart
LONGEST_NAME = 40
COLUMNS = tuple(field.name for field in fields(Span))
NUMBERS = COLUMNS[2:-1]
OPTIONAL = COLUMNS[7:]


def fold_many(spans: Iterable[Span]) -> list[Span]:
    """Return the spans by their start; many of the same owner, phase and round become one."""
    kinds: dict[tuple[str, str, int], list[Span]] = defaultdict(list)
    for span in spans:
        kinds[span.who, span.phase, span.round].append(span)
    kept = []
    for kind in kinds.values():
        kept += kind if len(kind) <= FEW else [folded(kind)]
    return sorted(kept, key=lambda span: span.at)


def folded(spans: Sequence[Span]) -> Span:
    """Return one span for several of the same owner, phase and round."""
    spread: Counter[int] = Counter()
    for span in spans:
        spread.update(span.spread or {bin_of(span.seconds): 1})
    return replace(
        min(spans, key=lambda span: span.at),
        seconds=sum(span.seconds for span in spans),
        nbytes=sum(span.nbytes for span in spans),
        tokens=sum(span.tokens for span in spans),
        rss=most(span.rss for span in spans),
        anon=most(span.anon for span in spans),
        vram=most(span.vram for span in spans),
        read=total(span.read for span in spans),
        written=total(span.written for span in spans),
        count=sum(span.count for span in spans),
        longest=max(span.max for span in spans),
        spread=dict(spread),
    )


def bin_of(seconds: float) -> int:
    """Return the histogram's bin for a duration; see ``seconds_of``."""
    return round(math.log(min(max(seconds, SHORTEST), LONGEST)) / STEP)


def seconds_of(bin: int) -> float:
    """Return the duration in the middle of a bin: ``1.02 ** bin`` seconds."""
    return math.exp(bin * STEP)


def most(values: Iterable[int | None]) -> int | None:
    """Return the largest of the known values; None if none is known."""
    return max((value for value in values if value is not None), default=None)


def total(values: Iterable[int | None]) -> int | None:
    """Return the sum of the known values; None if none is known."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def as_row(span: Span, start: float) -> list[Any]:
    """Return a span as a JSON list in the order of ``COLUMNS``, ``at`` counted from ``start``.

    Unknown values at the end of the list are left out.
    """
    row: list[Any] = [getattr(span, name) for name in COLUMNS]
    row[3], row[4] = round(span.at - start, 6), round(span.seconds, 6)
    if span.spread is None:
        row = row[:-3]
    else:
        row[-2] = round(span.max, 6)
    while row[-1] is None:
        row.pop()
    return row


def from_row(row: Any, start: float) -> Span:
    """Return the span of a row; nothing is assumed of who wrote it.

    Raises
    ------
    ValueError, TypeError, OverflowError
        If it is no row of ``as_row``.
    """
    if not isinstance(row, list) or not 5 <= len(row) <= len(COLUMNS):
        raise ValueError(f"a row has 5 to {len(COLUMNS)} values")
    values = dict(zip(COLUMNS, row, strict=False))
    for name in ("who", "phase"):
        text = values[name]
        if not isinstance(text, str) or len(text) > LONGEST_NAME or not text.isprintable():
            raise ValueError(f"{name} is no printable text of at most {LONGEST_NAME} characters")
    for name in NUMBERS:
        value = values.get(name)
        if value is None and (name not in values or name in OPTIONAL):
            values.pop(name, None)
            continue
        fractional = name in ("at", "seconds", "longest")
        if isinstance(value, bool) or not isinstance(value, (int, float) if fractional else int):
            raise ValueError(f"{name} is {value!r}, not a number")
        if not math.isfinite(value) or (value < 0 and name != "at"):
            raise ValueError(f"{name} is {value!r}, not a number of at least 0")
    spread = values.get("spread")
    if spread is not None:
        if not isinstance(spread, dict):
            raise ValueError("spread is no object of bins and their counts")
        # JSON has strings as keys.
        values["spread"] = {int(key): int(n) for key, n in spread.items()}
        low, high = bin_of(SHORTEST), bin_of(LONGEST)
        if not all(low <= key <= high and n > 0 for key, n in values["spread"].items()):
            raise ValueError("spread has an impossible bin or count")
    if (sum(values["spread"].values()) if spread is not None else 1) != values.get("count", 1):
        raise ValueError("count is not the sum of spread")
    return Span(**{**values, "at": start + values["at"]})
