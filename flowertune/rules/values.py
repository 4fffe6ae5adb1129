"""Which JSON values a field may hold, and how that reads in a sentence."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flowertune.base.text import one_line

_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Value:
    """What a field may hold: in words, to stand after "which has to be", and as a test."""

    allowed: str
    fits: Callable[[Any], bool]


def one_of(*values: Any) -> Value:
    """One of these, of the same type: 1 is not true."""
    listed = ", ".join(map(repr, values))
    kept = [(type(value), value) for value in values]
    return Value(
        listed if len(values) == 1 else f"one of {listed}",
        lambda given: (type(given), given) in kept,
    )


def optional(value: Value) -> Value:
    """A value or null."""
    return Value(f"{value.allowed} or null", lambda given: given is None or value.fits(given))


def whole(low: int = 0, high: int = 2**53) -> Value:
    """A whole number in this range; true and false are none."""
    return Value(f"a whole number from {low}", lambda given: is_whole(given, low, high))


def is_whole(given: Any, low: int = 0, high: int = 10**6) -> bool:
    """Whether a value is a whole number in this range."""
    return type(given) is int and low <= given <= high


def is_number(given: Any) -> bool:
    """Whether a value is a finite number of a reasonable size."""
    # NaN and infinity fail the bound, and an integer may be too large to be made a float.
    return type(given) in (int, float) and abs(given) <= 10**9


def is_text(given: Any) -> bool:
    """Whether a value is a text that may stand on one line of a terminal."""
    return isinstance(given, str) and 0 < len(given) <= 4096 and given.isprintable()


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal and of one type: to Python, 1, 1.0 and true are equal."""
    return type(one) is type(other) and repr(one) == repr(other)


def shown(value: Any) -> str:
    """Return a value as it stands in a sentence: short, and without what moves a cursor.

    Letters stay letters; control characters and those that turn the direction of a line are
    written out.
    """
    return one_line(repr(value), 60)


SWITCH = one_of(True, False)
TEXT = Value("a text", is_text)
DIGEST = Value(
    "a sha256 in hex",
    lambda given: isinstance(given, str) and _DIGEST.fullmatch(given) is not None,
)
