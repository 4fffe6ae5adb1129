"""Rows of a partition that are held out of training, to see how good an adapter is."""

import random
from collections.abc import Sequence

from flowertune.base.seeds import derive_seed
from flowertune.data.tokens import Example


def held_out_of(rows: int, share: float) -> int:
    """Return how many of a partition's ``rows`` are held out: at least one, but never all."""
    return min(max(1, int(share * rows)), rows - 1) if rows > 1 else 0


def split(
    examples: Sequence[Example], share: float, seed: int, partition: int
) -> tuple[list[Example], list[Example]]:
    """Return the rows to train on and those held out; they are the same in every round.

    A copy of a row that is held out is on neither side, unless nothing were left to train on.
    """
    count = held_out_of(len(examples), share)
    draw = random.Random(derive_seed("held-out", seed, partition))
    out = {*draw.sample(range(len(examples)), count)}
    held = [examples[number] for number in sorted(out)]
    known = {_content(example) for example in held}
    others = [example for number, example in enumerate(examples) if number not in out]
    return [row for row in others if _content(row) not in known] or others, held


def _content(example: Example) -> tuple[bytes, int]:
    return example.ids.tobytes(), example.answer_start
