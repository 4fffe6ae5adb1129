"""Percentages as the leaderboard prints them: two decimals, half up, at every step."""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

_CENT = Decimal("0.01")


def _half_up(value: Fraction) -> Decimal:
    scaled = value * 100
    whole, rest = divmod(scaled.numerator, scaled.denominator)
    cents = whole + (1 if 2 * rest >= scaled.denominator else 0)
    return (Decimal(cents) / 100).quantize(_CENT, rounding=ROUND_HALF_UP)


def percent(correct: int, rows: int) -> Decimal:
    """`correct` of `rows` in percent, two decimals, half up, from the exact fraction.

    Raises:
        ValueError: `rows` is not positive.
    """
    if rows <= 0:
        raise ValueError(f"a percentage needs at least one row, got {rows}")
    return _half_up(Fraction(100 * correct, rows))


def average(percents: Iterable[Decimal]) -> Decimal:
    """Plain mean of already rounded percentages, two decimals, half up."""
    values = [Fraction(value) for value in percents]
    return _half_up(sum(values, Fraction(0)) / len(values))
