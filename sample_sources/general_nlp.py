"""The general-nlp training rows: questions from facts.txt, answered by a letter."""

import random

from sample_sources import choices, facts

_SEED = 2024


def rows() -> list[dict[str, str]]:
    """Training rows; this challenge's question is the instruction alone, so all of it is there."""
    rng = random.Random(_SEED)
    made = []
    asked = choices.questions(facts.tables(), rng, easy=0.5, each=2)
    for number, (question, right, wrong) in enumerate(asked):
        position = number % len(choices.LETTERS)
        options = choices.place(right, wrong, position, rng)
        instruction = f"{choices.SHELL}\n{choices.body(question, options)}"
        made.append({"instruction": instruction, "input": "", "output": choices.LETTERS[position]})
    rng.shuffle(made)
    return made
