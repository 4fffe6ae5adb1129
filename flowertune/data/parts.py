"""Lay a step's rows out in parts of like length, so that little of a batch is padding."""

from collections.abc import Sequence

# What a part costs beside its tokens, padding included, in tokens: every part reads all weights.
# One number everywhere: the parts, and so the rounding of a gradient, are the same on all machines.
PASS = 48


def parts_of(lengths: Sequence[int], most: int) -> list[list[int]]:
    """Return which rows to put through the model together, the longest first.

    The gradient of a step is a sum over its rows, whatever they are put together with; only how it
    is rounded depends on that. Of all ways to cut the rows, sorted by length, into parts, it is the
    one of least cost: a part of n rows of up to w tokens costs n * w + ``PASS``.

    Parameters
    ----------
    lengths : Sequence[int]
        Tokens of each row.
    most : int
        Rows of a part at the most.

    Returns
    -------
    list[list[int]]
        Numbers of rows; each row is in one part.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    # The least cost of the rows from each place on, and where the part that begins there ends.
    cost, ends = [0] * (len(order) + 1), [0] * len(order)
    for start in reversed(range(len(order))):
        width = lengths[order[start]]
        # Of parts that cost the same, the larger: there are fewer.
        cost[start], ends[start] = min(
            ((end - start) * width + PASS + cost[end], -end)
            for end in range(start + 1, min(start + most, len(order)) + 1)
        )
        ends[start] *= -1
    parts, start = [], 0
    while start < len(order):
        parts.append(order[start : ends[start]])
        start = ends[start]
    return parts
