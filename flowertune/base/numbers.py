"""Read numbers out of Flower's records, whose values may be of many types."""

from collections.abc import Mapping
from typing import Any


def as_int(record: Mapping[str, Any], key: str) -> int:
    """Return the whole number at ``key``.

    Raises
    ------
    TypeError
        If it is something else.
    """
    value = record[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{key} is {value!r}, not a whole number")
    return value


def as_float(record: Mapping[str, Any], key: str) -> float:
    """Return the number at ``key`` as a float.

    Raises
    ------
    TypeError
        If it is something else.
    """
    value = record[key]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{key} is {value!r}, not a number")
    return float(value)
