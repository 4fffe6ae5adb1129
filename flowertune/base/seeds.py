"""Seeds that depend on what they are for, and on nothing that happened before."""

import random


def derive_seed(*parts: object) -> int:
    """Return a 63-bit number that depends on the text of ``parts`` alone."""
    return random.Random("/".join(map(str, parts))).getrandbits(63)
