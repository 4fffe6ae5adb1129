"""Quantiles of Student's t distribution."""

import math

_STEPS = 200  # of the continued fraction; a tenth is enough


def quantile(probability: float, freedom: int) -> float:
    """Return the quantile of the t distribution, to about ten digits.

    Parameters
    ----------
    probability : float
        Between 0.5 and 1, both left out.
    freedom : int
        Degrees of freedom, at least 1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    if not 0.5 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile of {probability} with {freedom} degrees of freedom")
    low, high = 0.0, 1.0
    while _above(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _above(middle, freedom) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _above(value: float, freedom: int) -> float:
    """The probability of more than a positive value."""
    return _beta(freedom / 2, 0.5, freedom / (freedom + value * value)) / 2


def _beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function."""
    if x >= 1:
        return 1.0
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast on this side only.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for part in (even, odd):
            d, c = 1 / (1 + part * d), 1 + part / c
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value
