"""Which rows of a set are answered again."""

import hashlib


def drawn_rows(name: str, rows: int, count: int, seed: str, batch: int | None = None) -> list[int]:
    """Return the numbers of ``count`` rows of a set of ``rows``, in order.

    Rows are ordered by the sha256 of seed, set and number, and the first ones taken: anybody can
    repeat it. Where the official scorer decides rows in batches, whole batches are drawn in the
    same way until they hold as many rows.

    Parameters
    ----------
    name : str
        The set's.
    batch : int | None
        Rows in a batch of the official scorer; None where batches decide nothing.
    """
    size = batch or 1
    batches = [range(first, min(first + size, rows)) for first in range(0, rows, size)]
    order = sorted(
        range(len(batches)),
        key=lambda n: hashlib.sha256(f"{seed}\n{name}\n{n}".encode()).hexdigest(),
    )
    taken: list[int] = []
    for number in order:
        if len(taken) >= count:
            break
        taken += batches[number]
    return sorted(taken)
