"""Draft the next tokens from those that came before, so that one forward pass checks several.

A row that repeats itself, or its prompt, mostly goes on as it did before: with the tokens that
followed the same n-gram earlier (prompt lookup decoding, Saxena 2023; a case of speculative
decoding, Leviathan et al., 2023). A wrong draft costs a little time and changes nothing: each
token is still the one that the model chooses.
"""

from collections.abc import Sequence

NGRAM = 3  # tokens that must have occurred before, in this order
MOST = 12  # tokens drafted at once
# What a forward pass costs before the first token, in tokens: it has to read the weights once.
FIXED_COST = 48


class NGramDraft:
    """A growing row, with the place where each of its n-grams last ended."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}
        self._start: int | None = None
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Append a token to the row."""
        self.tokens.append(token)
        ngram = tuple(self.tokens[-NGRAM:])
        if len(ngram) == NGRAM:
            self._start = self._ends.get(ngram)
            self._ends[ngram] = len(self.tokens)

    def propose(self) -> tuple[list[int], int]:
        """Return the tokens that followed last time, and how many of them to expect to be right.

        The longer the text before them is the same as it was then, the more are expected.
        """
        start = self._start
        if start is None:
            return [], 0
        same = NGRAM
        while same < min(MOST + 2, start) and self._same_before(start, same):
            same += 1
        # A loop shorter than the draft goes on from its own beginning.
        period = len(self.tokens) - start
        draft = [self.tokens[start + n % period] for n in range(MOST)]
        return draft, min(MOST, same - NGRAM + 1)

    def _same_before(self, start: int, tokens: int) -> bool:
        return self.tokens[start - tokens - 1] == self.tokens[-tokens - 1]


def draft_length(expected: Sequence[int]) -> int:
    """Return how many drafted tokens to check for every row, given how many may be right in each.

    All rows are as wide as the widest in a forward pass, so one row's draft costs all others.
    """
    rows = len(expected)

    def pace(length: int) -> float:
        gained = rows + sum(min(length, right) for right in expected)
        return gained / (FIXED_COST + rows * (1 + length))

    return max(range(max(expected, default=0) + 1), key=pace)
