"""Replies of one round compared with each other: who differs from the others, and is left out."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from statistics import median_low

import torch

from flowertune.config.settings import WHERE

SMALL, LARGE = 1e-15, 1e15  # norms between them are sums of squares that float32 can hold


def unlike_the_others(kinds: Mapping[int, Hashable]) -> list[int]:
    """Return the partitions whose replies are of another kind than most.

    Of two kinds that are equally frequent, that of the first partition counts.
    """
    ordered = [kinds[partition] for partition in sorted(kinds)]
    if not ordered:
        return []
    ((most, _),) = Counter(ordered).most_common(1)
    return [partition for partition in sorted(kinds) if kinds[partition] != most]


def norm_of(
    tensors: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor] | None = None
) -> float:
    """Return the Euclidean norm of all values together, or of what they are off ``base``."""
    squares, scratch = 0.0, torch.empty(0)
    for name, tensor in tensors.items():
        if base is not None:
            if len(scratch) < tensor.numel():
                scratch = torch.empty(tensor.numel())
            out = scratch[: tensor.numel()].view(tensor.shape)
            tensor = torch.sub(tensor, base[name], out=out)
        norm = float(torch.linalg.vector_norm(tensor))
        if not SMALL < norm < LARGE:
            norm = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
        squares += norm**2
    return math.sqrt(squares)


def too_large(
    norms: Mapping[int, float], sent: Callable[[int], float], factor: float
) -> dict[int, str]:
    """Return why updates are too large, by partition: a bad one would be the mean by itself.

    An update is compared with the median of those that change anything, the lower of the middle
    two where their number is even, and counts in any case if it is no larger than the adapter that
    its client was sent. Where one or two change anything there is no majority: each is compared
    with the adapter that its client was sent.

    Parameters
    ----------
    norms : Mapping[int, float]
        The norm of each partition's update: of what it trained minus what it was sent.
    sent : Callable[[int], float]
        Returns the norm of the adapter that a partition was sent.
    factor : float
        How many times that is too large; 0 for any norm being right.
    """
    changed = {partition: norm for partition, norm in norms.items() if norm > 0}
    if not changed or not factor:
        return {}
    alone = len(changed) < 3
    median = median_low(changed.values())
    refused = {}
    for partition, norm in changed.items():
        own = sent(partition)
        # Beside an adapter of zeros there is nothing to compare a single update with.
        limit = factor * (own or math.inf) if alone else max(factor * median, own)
        if norm > limit:
            of_what = "that of the adapter it was sent," if alone else "the round's median"
            refused[partition] = (
                f"its update has norm {norm:.3g}, more than {factor:g} times {of_what} "
                f"{own if alone else median:.3g} (strategy.max-update-norm {WHERE})"
            )
    return refused
