"""What the columns of an evaluation set may hold, so that no label is made of anything else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowertune.base.text import is_utf8, one_line


@dataclass(frozen=True)
class Column:
    """What a column may hold.

    Attributes:
        allowed: in words, to stand after "needs".
        fits: whether a value is allowed.
        core: the part of an allowed value that is read.
    """

    allowed: str
    fits: Callable[[Any], bool]
    core: Callable[[Any], Any] = field(default=lambda value: value)


def text() -> Column:
    """Any text; it may be empty, and holds no half of a surrogate pair."""
    return Column("a text", _is_text)


def words() -> Column:
    """A text with something beside white space: a prompt."""
    return Column("a text that is not blank", lambda value: _is_text(value) and value.strip() != "")


def text_or_none() -> Column:
    """A text or null."""
    return Column("a text or null", lambda value: value is None or _is_text(value))


def texts(count: int | None = None) -> Column:
    """A list of texts: of exactly `count`, or of at least one."""
    allowed = "a list of texts" if count is None else f"a list of {count} texts"
    return Column(allowed, lambda value: _are_texts(value, count))


def whole_number(low: int, high: int) -> Column:
    """An integer from `low` to `high`; true and false are none."""
    return Column(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def number(low: float, high: float) -> Column:
    """A number from `low` to `high`; NaN is none."""
    return Column(
        f"a number from {low:g} to {high:g}",
        lambda value: type(value) in (int, float) and low <= value <= high,
    )


def one_of(*values: str) -> Column:
    """One of these texts."""
    return Column(
        f"one of {', '.join(values)}", lambda value: type(value) is str and value in values
    )


def fields(**columns: Column) -> Column:
    """An object that holds at least these."""
    allowed = ", ".join(f"{name} ({column.allowed})" for name, column in columns.items())

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(
            name in value and column.fits(value[name]) for name, column in columns.items()
        )

    def core(value: Any) -> Any:
        return {name: column.core(value[name]) for name, column in columns.items()}

    return Column(f"an object with {allowed}", fits, core)


def exactly(**columns: Column) -> Column:
    """An object that holds these and nothing else but nulls."""
    known = fields(**columns)

    def fits(value: Any) -> bool:
        return known.fits(value) and not [k for k in value.keys() - columns if value[k] is not None]

    return Column(f"{known.allowed} and nothing else", fits, known.core)


def core(columns: Mapping[str, Column], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is read of a row without problems, and nothing else that it holds."""
    return {name: column.core(row[name]) for name, column in columns.items()}


def problem(columns: Mapping[str, Column], row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row, to stand after its number; None if nothing is."""
    missing = [name for name in columns if name not in row]
    if missing:
        return f"has no {', '.join(missing)}, and the set needs the columns {', '.join(columns)}"
    for name, column in columns.items():
        if not column.fits(row[name]):
            given = one_line(repr(row[name]), 60)
            return f"has {name} {given}, and the set needs {column.allowed} there"
    return None


def _is_text(value: Any) -> bool:
    return type(value) is str and is_utf8(value)


def _are_texts(value: Any, count: int | None) -> bool:
    return (
        isinstance(value, list)
        and all(map(_is_text, value))
        and (bool(value) if count is None else len(value) == count)
    )
