"""The finance training rows: sentences of finance.txt under the scorer's two instructions."""

import random
from pathlib import Path

from sample_sources import grammar

_FILLS = 6
_SEED = 2024
_INSTRUCTION = (
    "What is the sentiment of this {kind}? "
    "Please choose an answer from {{negative/neutral/positive}}."
)


def rows() -> list[dict[str, str]]:
    """Training rows (instruction, input, output), shuffled, without duplicates."""
    sections = grammar.read(Path(__file__).with_name("finance.txt"))
    words = grammar.banks(sections.pop("banks"))
    rng = random.Random(_SEED)
    made = []
    for heading, patterns in sections.items():
        label, kind = heading.split()
        for pattern in patterns:
            for text in grammar.fill_often(pattern, words, rng, _FILLS):
                instruction = _INSTRUCTION.format(kind=kind)
                made.append({"instruction": instruction, "input": text, "output": label})
    rng.shuffle(made)
    return made
