"""How many rounds each method has, so that all have the same bytes or the same tokens."""

from collections.abc import Sequence

from flowertune.base.text import MIB

MEASURED = 3  # rounds: methods may send something else in every second one


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
        Bytes of rounds 1, 2 and 3, both directions; rounds 2 and 3 take turns from then on.
    """
    first, *turns = measured
    later = rounds - 1
    return before + first + sum(turns[n % 2] for n in range(later)) if rounds else before


def rounds_for_bytes(budget_mib: float, before: int, measured: Sequence[int]) -> int:
    """Return the most rounds that stay within a budget; 0 where not even one does."""
    rounds, most = 0, budget_mib * MIB
    while bytes_after(rounds + 1, before, measured) <= most:
        rounds += 1
    return rounds
