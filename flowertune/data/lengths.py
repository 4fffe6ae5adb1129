"""How many tokens each row has, before anything is cut."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowertune.data.tokens import Example


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row's prompt, and of prompt, answer and end-of-sequence together."""

    prompt: int
    total: int

    @property
    def bad(self) -> bool:
        """Whether the row is left out because it has no text for question or answer."""
        return self.total < 0


BAD = Lengths(-1, -1)


def lengths_of(examples: Iterable[Example | None]) -> list[Lengths]:
    """Return the lengths of tokenized rows; ``BAD`` for each None."""
    return [BAD if e is None else Lengths(e.answer_start, len(e.ids)) for e in examples]
