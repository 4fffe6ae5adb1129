"""Standard errors and intervals, in percentage points."""

import math
from collections.abc import Sequence
from fractions import Fraction

_NORMAL_975 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


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


def interval(difference: float, error: float | None) -> tuple[float, float] | None:
    """95 % confidence interval by the normal approximation."""
    if error is None:
        return None
    return difference - _NORMAL_975 * error, difference + _NORMAL_975 * error


def macro_f1(targets: Sequence[str], answers: Sequence[str]) -> Fraction:
    """Mean F1 over the classes that occur among targets or answers, 0 to 1."""
    scores = []
    for label in {*targets, *answers}:
        pairs = list(zip(targets, answers, strict=True))
        both = sum(target == label == answer for target, answer in pairs)
        either = sum((target == label) + (answer == label) for target, answer in pairs)
        scores.append(Fraction(2 * both, either))
    return sum(scores, Fraction(0)) / len(scores)
