"""Standard errors and intervals, in percentage points. No interval leaves what is possible."""

import math
from collections.abc import Sequence
from fractions import Fraction

_NORMAL_975 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution

Interval = tuple[float, float]


def standard_error(points: Sequence[Fraction]) -> float | None:
    """Standard error of the mean of points between 0 and 1; None for fewer than two.

    With several samples of a problem, each problem gives one number, so that samples of the same
    problem do not count as independent.
    """
    rows = len(points)
    if rows < 2:
        return None
    mean = sum(points, Fraction(0)) / rows
    squares = sum(((point - mean) ** 2 for point in points), Fraction(0))
    return 100 * math.sqrt(squares / (rows - 1) / rows)


def difference_error(before: Sequence[Fraction], after: Sequence[Fraction]) -> float | None:
    """Standard error of the mean difference of two models on the same rows (paired)."""
    return standard_error([b - a for a, b in zip(before, after, strict=True)])


def mean_error(errors: Sequence[float | None]) -> float | None:
    """Standard error of the plain mean of independent numbers with these standard errors."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors) or not known:
        return None
    return math.sqrt(sum(error**2 for error in known)) / len(known)


def interval(points: Sequence[Fraction]) -> Interval:
    """95 % confidence interval of a mean of points between 0 and 1 (Wilson's score interval)."""
    low, high = _wilson(float(_mean(points)), len(points))
    return 100 * low, 100 * high


def difference_interval(before: Sequence[Fraction], after: Sequence[Fraction]) -> Interval:
    """95 % confidence interval of the difference of two models on the same rows.

    That is Newcombe's hybrid score interval for paired proportions (1998, method 10), made of the
    two Wilson intervals and the correlation of the points.
    """
    first, second = float(_mean(before)), float(_mean(after))
    (low_1, high_1), (low_2, high_2) = _wilson(first, len(before)), _wilson(second, len(after))
    related = _correlation(before, after)

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * related * one * other + other**2))

    difference = second - first
    low = difference - reach(second - low_2, high_1 - first)
    high = difference + reach(high_2 - second, first - low_1)
    return 100 * max(-1.0, low), 100 * min(1.0, high)


def mean_interval(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """95 % confidence interval of the plain mean of independent numbers with these intervals.

    The distances of the limits are added like standard errors (MOVER, Zou and Donner 2008).
    """
    count, mean = len(values), sum(values) / len(values)
    pairs = list(zip(values, intervals, strict=True))
    below = math.sqrt(sum((value - low) ** 2 for value, (low, _) in pairs)) / count
    above = math.sqrt(sum((high - value) ** 2 for value, (_, high) in pairs)) / count
    return mean - below, mean + above


def macro_f1(targets: Sequence[str], answers: Sequence[str]) -> Fraction:
    """Mean F1 over the classes that occur among targets or answers, 0 to 1."""
    scores = []
    for label in {*targets, *answers}:
        pairs = list(zip(targets, answers, strict=True))
        both = sum(target == label == answer for target, answer in pairs)
        either = sum((target == label) + (answer == label) for target, answer in pairs)
        scores.append(Fraction(2 * both, either))
    return sum(scores, Fraction(0)) / len(scores)


def _mean(points: Sequence[Fraction]) -> Fraction:
    return sum(points, Fraction(0)) / len(points)


def _wilson(mean: float, rows: int) -> Interval:
    square = _NORMAL_975**2 / rows
    middle = (mean + square / 2) / (1 + square)
    half = math.sqrt(mean * (1 - mean) * square + square**2 / 4) / (1 + square)
    # Rounding must not put the mean outside: for 0 or all points one limit is the mean.
    return max(0.0, min(mean, middle - half)), min(1.0, max(mean, middle + half))


def _correlation(before: Sequence[Fraction], after: Sequence[Fraction]) -> float:
    first, second = _mean(before), _mean(after)
    pairs = [(a - first, b - second) for a, b in zip(before, after, strict=True)]
    spread = sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs)
    together = sum((a * b for a, b in pairs), Fraction(0))
    if together > 0:  # Newcombe's continuity correction
        together = max(Fraction(0), together - Fraction(1, 2))
    return float(together) / math.sqrt(spread) if spread else 0.0
