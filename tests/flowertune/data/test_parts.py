"""Parts of like length: every row once, no part too large, and no cheaper way to cut them."""

import random
from itertools import combinations, pairwise

import pytest

from flowertune.data.parts import PASS, parts_of


def cost(parts, lengths):
    return sum(len(part) * max(lengths[n] for n in part) + PASS for part in parts)


def all_cuts(order, most):
    """Every way to cut a sequence into parts of at most so many."""
    for count in range(len(order)):
        for cuts in combinations(range(1, len(order)), count):
            places = [0, *cuts, len(order)]
            parts = [order[a:b] for a, b in pairwise(places)]
            if all(len(part) <= most for part in parts):
                yield parts


@pytest.mark.parametrize("seed", range(12))
def test_no_cut_of_the_sorted_rows_is_cheaper(seed):
    rng = random.Random(seed)
    lengths = [rng.choice([5, 20, 60, 200, rng.randrange(1, 500)]) for _ in range(9)]
    most = rng.randrange(1, 10)
    parts = parts_of(lengths, most)
    assert sorted(row for part in parts for row in part) == list(range(9))
    order = sorted(range(9), key=lambda row: lengths[row])
    assert cost(parts, lengths) == min(cost(cut, lengths) for cut in all_cuts(order, most))


def test_rows_of_one_length_stay_together_and_the_longest_come_first():
    assert parts_of([30] * 4, 4) == [[0, 1, 2, 3]]
    assert parts_of([30, 500, 30, 480], 4) == [[1, 3], [0, 2]]
    assert [len(part) for part in parts_of([10] * 10, 4)] == [4, 4, 2]
    assert parts_of([], 4) == []


def test_much_less_of_a_batch_is_padding():
    """Lengths as real challenges have them: log-normal, median 90, 95 % at most 380, cut at 512."""
    rng = random.Random(0)
    lengths = [min(512, max(8, round(rng.lognormvariate(4.5, 0.876)))) for _ in range(160)]
    whole = padded = 0
    for start in range(0, 160, 16):
        step = lengths[start : start + 16]
        whole += 16 * max(step)
        padded += sum(len(p) * max(step[n] for n in p) for p in parts_of(step, 16))
    assert padded < 0.6 * whole
