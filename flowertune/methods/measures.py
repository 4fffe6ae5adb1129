"""What is measured of every method in every round: aggregation residual, and drift of clients."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from flowertune.methods.cores import on_all_cores
from flowertune.methods.factors import flat_a, flat_b, pairs_in, split_experts, stacked

BLOCK = 2**15
EXACT = 1024  # the most columns of stacked factors of which the norm is computed and not estimated
PROBES = 64
Tensors = Mapping[str, np.ndarray]


def measured(
    before: Tensors, sent: Sequence[Tensors], came: Sequence[Tensors], weights: Sequence[int],
    after: Tensors, experts: Mapping[str, int] | None = None, made: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what a line of rounds.jsonl says of a round's aggregation.

    Parameters
    ----------
    before, after : Mapping[str, np.ndarray]
        The global adapter before the round, and what the server made of it.
    sent, came : Sequence[Mapping[str, np.ndarray]]
        What each client was sent to be trained, and what it sent back; tensors that it did not
        send are as they were. Of a smaller rank than the adapter's, zeros stand for the rest.
    weights : Sequence[int]
        Their examples.
    experts : Mapping[str, int] | None
        How many experts' factors a tensor holds, where it holds several.
    made : Mapping[str, tuple[np.ndarray, np.ndarray]] | None
        By module, factors of what the server made of the clients' products, where that is not the
        product of the new adapter's.

    Returns
    -------
    dict
        ``residual``: |sum p B_k A_k - B A| / |sum p B_k A_k| over all modules, where B A is
        what the server made; ``residuals``: the same by module; ``drift``: the root of
        sum p |d_k - d|^2 / |d|^2, where d_k is a client's update and d = sum p d_k. None where the
        denominator is 0, or where there is nothing to compare.
    """
    shares = [weight / sum(weights) for weight in weights]
    modules = {}
    pairs = pairs_in(before)

    def of_pair(pair: Any) -> tuple[float, float]:
        each = [{n: one.get(n, before[n]) for n in (pair.b, pair.a)} for one in (*came, after)]
        if experts and pair.a in experts:
            split = [split_experts(one, experts) for one in each]
            parts = pairs_in(split[0])
            return _total(_of_factors(split, shares, part) for part in parts)
        if made and pair.module in made:
            factors = [(flat_b(one[pair.b]), flat_a(one[pair.a])) for one in each[:-1]]
            return squares(factors, shares, made[pair.module])
        return _of_factors(each, shares, pair)

    for pair, (off, whole) in zip(pairs, on_all_cores(of_pair, pairs), strict=True):
        modules[pair.module] = off, whole
    names = [name for name in before if name in came[0]]
    spread = on_all_cores(lambda n: _spread(n, before[n], sent, came, shares), names)
    return {
        "residual": _ratio(*_total(modules.values())),
        "residuals": {module: _ratio(*pair) for module, pair in modules.items()},
        "drift": _ratio(*_total(spread)),
    }


def _of_factors(each: Sequence[Tensors], shares: Sequence[float], pair: Any) -> tuple[float, float]:
    *factors, made = [(flat_b(one[pair.b]), flat_a(one[pair.a])) for one in each]
    return squares(factors, shares, made)


def squares(
    factors: Sequence[tuple[np.ndarray, np.ndarray]],
    shares: Sequence[float],
    made: tuple[np.ndarray, np.ndarray],
) -> tuple[float, float]:
    """Return |sum p B_k A_k - B A|^2 and |sum p B_k A_k|^2, of factors, without the product.

    |left right|^2 = trace((left^T left)(right right^T)). Many clients have so many columns together
    that the products of both with fixed random probes are cheaper: then both are estimates.
    """
    left, right = stacked([*factors, made], [*shares, -1.0])
    own = made[0].shape[1]
    if left.shape[1] <= EXACT:
        terms = (left.T @ left) * (right @ right.T)
        return max(0.0, float(terms.sum())), max(0.0, float(terms[:-own, :-own].sum()))
    probes = right @ np.random.default_rng(0).standard_normal((right.shape[1], PROBES))
    off, whole = left @ probes, left[:, :-own] @ probes[:-own]
    return float((off**2).sum()) / PROBES, float((whole**2).sum()) / PROBES


def _spread(
    name: str, before: np.ndarray, sent: Sequence[Tensors], came: Sequence[Tensors],
    shares: Sequence[float],
) -> tuple[float, float]:  # fmt: skip
    """Return sum p |d_k - d|^2 and |d|^2 of one tensor."""
    rows = [
        (_padded(new[name], before.shape), _padded(old[name], before.shape))
        for new, old in zip(came, sent, strict=True)
    ]
    apart = mean = 0.0
    for first in range(0, before.size, BLOCK):
        part = slice(first, first + BLOCK)
        updates = [np.subtract(new[part], old[part], dtype=np.float64) for new, old in rows]
        middle = sum(share * update for share, update in zip(shares, updates, strict=True))
        mean += float(np.dot(middle, middle))
        for share, update in zip(shares, updates, strict=True):
            off = update - middle
            apart += share * float(np.dot(off, off))
    return apart, mean


def _padded(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values in a larger shape with zeros at the ends, as one row."""
    if values.shape != shape:
        ends = [(0, want - has) for want, has in zip(shape, values.shape, strict=True)]
        values = np.pad(values, ends)
    return values.reshape(-1)


def _total(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    found = list(pairs)
    return sum(above for above, _ in found), sum(below for _, below in found)


def _ratio(above: float, below: float) -> float | None:
    return math.sqrt(above / below) if below > 0 else None
