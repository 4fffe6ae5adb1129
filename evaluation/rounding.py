"""Percentages as the leaderboard prints them: two decimals, half up, at every step."""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction


def half_up(value: Fraction) -> Decimal:
    """An exact value to two decimals; a half goes up, that is, away from minus infinity."""
    cents, rest = divmod((value * 100).numerator, (value * 100).denominator)
    if 2 * rest >= (value * 100).denominator:
        cents += 1
    return (Decimal(cents) / 100).quantize(Decimal("0.01"))


def percent(points: Fraction | int, rows: int) -> Decimal:
    """`points` of `rows` in percent, rounded from the exact fraction.

    Raises:
        ValueError: `rows` is not positive.
    """
    if rows <= 0:
        raise ValueError(f"a percentage needs at least one row, got {rows}")
    return half_up(Fraction(100 * points) / rows)


def average(percents: Iterable[Decimal]) -> Decimal:
    """Plain mean of already rounded percentages, rounded again."""
    values = [Fraction(value) for value in percents]
    return half_up(sum(values, Fraction(0)) / len(values))
