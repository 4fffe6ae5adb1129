"""Guess the tokens to come from those that came before, so that one forward pass checks several.

A row that repeats itself, or its prompt, is mostly right about what comes next: the tokens that
followed the same words earlier (prompt lookup decoding, Saxena 2023; a case of speculative
decoding, Leviathan et al., 2023). A wrong guess costs a little time and changes nothing: each
token is still the one that the model chooses.
"""

from collections.abc import Sequence

MATCH = 3  # tokens that must have occurred before, in this order
MOST = 12  # tokens guessed at once
# What a forward pass costs before the first token, in tokens: it has to read the weights once.
FIXED_COST = 48


class Echo:
    """Where each run of `MATCH` tokens was last seen in a growing row."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._guess_from: int | None = None
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token to the row."""
        self.tokens.append(token)
        key = tuple(self.tokens[-MATCH:])
        if len(key) == MATCH:
            self._guess_from = self._after.get(key)
            self._after[key] = len(self.tokens)

    def guess(self) -> tuple[list[int], int]:
        """The tokens that followed last time, and how many of them to expect to be right.

        The longer the text before them is the same as it was then, the more are expected.
        """
        start = self._guess_from
        if start is None:
            return [], 0
        same = MATCH
        while same < min(MOST + 2, start) and self._same_before(start, same):
            same += 1
        # A loop shorter than the guess goes on from its own beginning.
        period = len(self.tokens) - start
        found = [self.tokens[start + n % period] for n in range(MOST)]
        return found, min(MOST, same - MATCH + 1)

    def _same_before(self, start: int, tokens: int) -> bool:
        return self.tokens[start - tokens - 1] == self.tokens[-tokens - 1]


def width(expected: Sequence[int]) -> int:
    """How many guessed tokens to check for every row, given how many are expected to be right.

    All rows are as wide as the widest in a forward pass, so one row's guesses cost all others.
    """
    rows = len(expected)

    def pace(guesses: int) -> float:
        gained = rows + sum(min(guesses, right) for right in expected)
        return gained / (FIXED_COST + rows * (1 + guesses))

    return max(range(max(expected, default=0) + 1), key=pace)
