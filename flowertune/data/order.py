"""Which rows a client trains on, and when: functions of seed, round and partition only."""

import random
from collections.abc import Sequence

from flowertune.base.seeds import derive_seed


def sample_clients(
    partitions: Sequence[int], count: int, seed: int, server_round: int
) -> list[int]:
    """Return the ``count`` partitions that train in ``server_round``, sorted."""
    rng = random.Random(derive_seed("cohort", seed, server_round))
    return sorted(rng.sample(sorted(partitions), count))


def rows_of_round(
    rows: int, needed: int, seed: int, server_round: int, partition: int
) -> list[int]:
    """Return the ``needed`` row numbers that a partition trains on in ``server_round``.

    The partition's rows are laid out as one endless series of shuffled passes; each round
    takes the next ``needed`` of them, whether or not the partition trained in the rounds
    between. So every row has its turn, and a round's rows depend on nothing that happened.
    """
    start = (server_round - 1) * needed
    picked: list[int] = []
    while len(picked) < needed:
        position = start + len(picked)
        lap, offset = divmod(position, rows)
        order = list(range(rows))
        random.Random(derive_seed("rows", seed, partition, lap)).shuffle(order)
        picked += order[offset : offset + needed - len(picked)]
    return picked
