"""A band around the losses of reference runs, and a run held against it.

The rounds are cut into a few stretches, and a run has one number in each: its mean loss there. The
lower edge of the band is the limit of a one-sided prediction interval (Student's t) for the number
of one more run. The levels of all stretches together are `LEVEL`: of runs like the reference runs,
so many are flagged by chance at the most.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any, Literal

from flowertune.base.student import quantile

LEVEL = 0.05
STRETCHES = 10
FEWEST = 3  # runs a band can be made of
ENOUGH = 10  # runs it should be made of


@dataclass(frozen=True)
class Stretch:
    """Some rounds in a row: the mean of the reference runs' mean losses, and the band's edge."""

    first: int
    last: int
    mean: float
    deviation: float
    limit: float


@dataclass(frozen=True)
class Comparison:
    """A run held against a band.

    Attributes:
        status: "within", "faster", or "none" where nothing can be compared.
        sentence: which says so, with the numbers.
    """

    status: Literal["within", "faster", "none"]
    sentence: str


def band_of(curves: Sequence[Sequence[float | None]]) -> list[Stretch]:
    """Return the band around curves of the same number of rounds.

    Args:
        curves: of at least three runs, the loss of each round; None where a round has none.

    Raises:
        ValueError: there are too few, they differ in length, or two are the same.
    """
    if len(curves) < FEWEST:
        raise ValueError(f"a band needs at least {FEWEST} runs, and there are {len(curves)}")
    if len({len(curve) for curve in curves}) > 1:
        raise ValueError("the runs have different numbers of rounds")
    if len({tuple(curve) for curve in curves}) < len(curves):
        raise ValueError("two runs have the same losses: each needs a seed of its own")
    cuts = stretches(len(curves[0]))
    count = len(curves)
    factor = quantile(1 - LEVEL / len(cuts), count - 1) * math.sqrt(1 + 1 / count)
    band = []
    for first, last in cuts:
        means = [mean_loss(curve, first, last) for curve in curves]
        known = [mean for mean in means if mean is not None]
        if len(known) < count:
            raise ValueError(f"a run has no loss in rounds {first} to {last}")
        middle, deviation = fmean(known), stdev(known)
        band.append(Stretch(first, last, middle, deviation, middle - factor * deviation))
    return band


def stretches(rounds: int) -> list[tuple[int, int]]:
    """Return first and last round of at most ten stretches of like length."""
    count = min(STRETCHES, rounds)
    edges = [rounds * n // count for n in range(count + 1)]
    return [(before + 1, after) for before, after in pairwise(edges)]


def mean_loss(curve: Sequence[float | None], first: int, last: int) -> float | None:
    """Return the mean of a curve over rounds, counted from 1; None where it has no loss there."""
    known = [loss for loss in curve[first - 1 : last] if loss is not None]
    return fmean(known) if known and len(curve) >= last else None


def losses(lines: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Return the loss of each round out of the lines of rounds.jsonl, in their order."""
    return [_loss(line.get("train-loss")) for line in lines]


def compare(curve: Sequence[float | None], band: Sequence[Stretch], runs: int) -> Comparison:
    """Return whether a run's loss falls faster than the band, in any stretch that it has whole.

    Args:
        curve: its loss in each round; None where a round has none.
        band: of the reference runs.
        runs: how many they are.
    """
    found = [(one, mean_loss(curve, one.first, one.last)) for one in band]
    there = [(one, loss) for one, loss in found if loss is not None]
    if not there:
        return Comparison(
            "none",
            f"Its {len(curve)} rounds hold no stretch of the reference runs' whole, so their band "
            "says nothing of it.",
        )
    below = [(one, loss) for one, loss in there if loss < one.limit]
    if not below:
        return Comparison(
            "within",
            f"Its loss falls no faster than that of {runs} reference runs ({len(there)} stretches "
            "of rounds compared).",
        )
    one, loss = min(below, key=lambda pair: pair[0].first)
    more = f", and in {len(below) - 1} later stretches" if len(below) > 1 else ""
    return Comparison(
        "faster",
        f"Its loss falls faster than that of {runs} reference runs: {loss:.4f} in rounds "
        f"{one.first} to {one.last}, where they have {one.mean:.4f} and the band ends at "
        f"{one.limit:.4f}{more}. Look at its method and its rows.",
    )


def _loss(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None
