"""How many tokens each row has, before anything is cut."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from flowertune.data.tokens import Example


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row's prompt, and of prompt, answer and end-of-sequence together.

    ``copy`` says that the row is as an earlier one of its partition.
    """

    prompt: int
    total: int
    copy: bool = False

    @property
    def bad(self) -> bool:
        """Whether the row is left out because it has no text for question or answer."""
        return self.total < 0


BAD = (-1, -1)  # prompt and total of a row that is left out


def lengths_of(examples: Iterable[Example | None], copies: Collection[int] = ()) -> list[Lengths]:
    """Return the lengths of tokenized rows; None is a bad one, ``copies`` are numbers of rows."""
    known = set(copies)
    sizes = (BAD if e is None else (e.answer_start, len(e.ids)) for e in examples)
    return [Lengths(*size, number in known) for number, size in enumerate(sizes)]
