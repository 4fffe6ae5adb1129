"""Replies of one round compared with each other: who differs from the others, and is left out."""

from collections import Counter
from collections.abc import Hashable, Mapping
from statistics import median_low

from flowertune.config.settings import WHERE


def unlike_the_others(kinds: Mapping[int, Hashable]) -> list[int]:
    """Return the partitions whose replies are of another kind than most.

    Of two kinds that are equally frequent, that of the first partition counts.
    """
    ordered = [kinds[partition] for partition in sorted(kinds)]
    if not ordered:
        return []
    ((most, _),) = Counter(ordered).most_common(1)
    return [partition for partition in sorted(kinds) if kinds[partition] != most]


def too_large(norms: Mapping[int, float], factor: float) -> dict[int, str]:
    """Return why updates are too large, by partition: a bad one would be the mean by itself.

    An update is compared with the median of those that change anything, the lower of the middle
    two where their number is even: of two clients, the smaller one. A single client's update is
    never too large.

    Parameters
    ----------
    norms : Mapping[int, float]
        The norm of each partition's update: of what it trained minus what it was sent.
    factor : float
        How many times the median is too large; 0 for any norm being right.
    """
    changed = [norm for norm in norms.values() if norm > 0]
    if not changed or not factor:
        return {}
    median = median_low(changed)
    return {
        partition: f"its update has norm {norm:.3g}, more than {factor:g} times the round's median "
        f"{median:.3g} (strategy.max-update-norm {WHERE})"
        for partition, norm in norms.items()
        if norm > factor * median
    }
