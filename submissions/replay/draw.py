"""Which rounds are trained again: fixed by the bundle and by a word chosen after submission.

The first round shows a start from other weights, the last one belongs to the checkpoint. The
others depend on the bundle's digest, so a bundle that is changed draws anew, and on the
organizer's word, so that nobody can make a bundle whose draw is known.
"""

import hashlib
import secrets
from collections.abc import Iterable

FALSE_SHARES = (0.05, 0.1, 0.2, 0.5)  # of rounds, for which the chance to see one is printed


def new_nonce() -> str:
    """Return a word that nobody can guess."""
    return secrets.token_hex(16)


def seed_of(digest: str, nonce: str) -> str:
    """Return what decides the draw, from a bundle's digest and the organizer's word."""
    return hashlib.sha256(f"{digest}\n{nonce}".encode()).hexdigest()


def drawn_rounds(rounds: int, draw: int, seed: str) -> list[int]:
    """Return the rounds to train again, in order: 1, the last, and ``draw`` of those between.

    Those between are ordered by the sha256 of the seed and their number, and the first ones taken:
    anybody can repeat it.

    Parameters
    ----------
    rounds : int
        How many the run has done; at least 1.
    """
    between = sorted(
        range(2, rounds), key=lambda n: hashlib.sha256(f"{seed}\n{n}".encode()).hexdigest()
    )
    return sorted({1, rounds, *between[:draw]})


def states_of(rounds: Iterable[int]) -> list[int]:
    """Return the rounds whose states are needed: the one before each, and its own."""
    return sorted({n for r in rounds for n in (r - 1, r)})


def chance(share: float, draws: int) -> float:
    """Return the chance that ``draws`` rounds drawn at random hold one of a false share."""
    return 1 - (1 - share) ** draws


def chances(rounds: int, draws: int) -> list[tuple[float, float]]:
    """Return the chance for each of ``FALSE_SHARES``, for ``draws`` rounds that were drawn.

    A run with few rounds between its first and its last is drawn whole: the chance is then 1.
    """
    whole = draws >= rounds - 2
    return [(share, 1.0 if whole else chance(share, draws)) for share in FALSE_SHARES]
