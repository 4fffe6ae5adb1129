"""How many tokens each row has, before anything is cut."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowertune.data.tokens import Example


@dataclass(frozen=True)
class Lengths:
    """Tokens of a row's prompt, and of prompt, answer and end-of-sequence together."""

    prompt: int
    total: int


def lengths_of(examples: Iterable[Example]) -> list[Lengths]:
    """Return the lengths of tokenized rows."""
    return [Lengths(example.answer_start, len(example.ids)) for example in examples]
