"""One prompt and what has been generated for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Row:
    """One prompt and what has been generated for it.

    Attributes:
        index: the caller's number for it.
        prompt: its tokens.
        limit: the most new tokens, at least 1.
        settled: whether nothing after these new tokens can change the answer.
        key: what its random numbers depend on, beside the seed.
        hidden: a token that the model does not see where it stands in the prompt, or None.
        padding: the token that pads this row on its right in a batch, or None if none does: the
            answer then begins from padding, at the position where padding is, not from the prompt.
        new: tokens generated so far.
        done: whether it is at its end.
        gaps: how far the best token was ahead of the second best, for each token so far.
    """

    index: int
    prompt: list[int]
    limit: int
    settled: Callable[[list[int]], bool] | None = None
    key: int = 0
    hidden: int | None = None
    padding: int | None = None
    new: list[int] = field(default_factory=list)
    done: bool = False
    gaps: list[float] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """The smallest lead of a token so far."""
        return min(self.gaps, default=float("inf"))

    def last_close(self, bound: float) -> int | None:
        """The place of the last new token whose lead was below `bound`, None if none was."""
        places = [place for place, gap in enumerate(self.gaps) if gap < bound]
        return places[-1] if places else None

    @property
    def seen(self) -> list[int]:
        """The tokens of the prompt that the model sees; the others count as tokens all the same."""
        return [token for token in self.prompt if token != self.hidden]

    def take(self, token: int, end_ids: Sequence[int]) -> None:
        """Append a generated token and note whether the row is done."""
        self.new.append(token)
        self.done = (
            token in end_ids
            or len(self.new) >= self.limit
            or (self.settled is not None and self.settled(self.new))
        )

    def restart(self) -> None:
        """Forget what was generated."""
        self.new, self.done, self.gaps = [], False, []
