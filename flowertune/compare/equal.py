"""How many rounds each method has, so that all have the same bytes or the same tokens."""

from collections.abc import Sequence

from flowertune.base.text import MIB

MEASURED = 5  # rounds: in every second one a method may send something else, and more each time


def rounds_for_tokens(total_rows: int, rows_of_a_round: int) -> int:
    """Return the rounds after which as many rows were trained on, to the nearest round."""
    return max(1, round(total_rows / rows_of_a_round))


def bytes_after(rounds: int, before: int, measured: Sequence[int]) -> int:
    """Return the bytes of a run, of which the first ``MEASURED`` rounds were counted.

    Parameters
    ----------
    before : int
        Bytes before round 1.
    measured : Sequence[int]
        Bytes of rounds 1 to ``MEASURED``, both directions. Later ones are as much above those two
        rounds before them as the last ones that were counted.
    """
    known = list(measured)
    while len(known) < rounds:
        parity = MEASURED - 1 - (len(known) - MEASURED + 1) % 2
        known.append(known[-2] + measured[parity] - measured[parity - 2])
    return before + sum(known[:rounds])


def rounds_for_bytes(budget_mib: float, before: int, measured: Sequence[int]) -> int:
    """Return the most rounds that stay within a budget; 0 where not even one does."""
    rounds, most = 0, budget_mib * MIB
    while bytes_after(rounds + 1, before, measured) <= most:
        rounds += 1
    return rounds
