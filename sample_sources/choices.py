"""Multiple-choice questions with the right letter spread evenly."""

import random

from sample_sources.facts import Table

LETTERS = "ABCD"
SHELL = "Answer the following multiple choice question."


def body(question: str, options: list[str]) -> str:
    """Question and lettered options, laid out as the scorers of general-nlp and medical do."""
    if not question.endswith(("?", ".")):
        question += "?"
    lettered = [f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=True)]
    return "\n".join([f"Question: {question}", "", "Options:", *lettered, "The answer is:"])


def place(right: str, wrong: list[str], position: int, rng: random.Random) -> list[str]:
    """The options with the right one at ``position`` and the wrong ones in random order."""
    options = rng.sample(wrong, len(wrong))
    options.insert(position, right)
    return options


def questions(
    tables: list[Table], rng: random.Random, easy: float, each: int
) -> list[tuple[str, str, list[str]]]:
    """(question, right option, three wrong options) for up to ``each`` ways to ask for every pair.

    A share ``easy`` of the questions takes its wrong options from other tables.
    """
    made = []
    for table in tables:
        values = sorted({value for _, value in table.pairs})
        keys = [key for key, _ in table.pairs]
        foreign = sorted(
            {value for other in tables if other.kind != table.kind for _, value in other.pairs}
        )
        for key, value in table.pairs:
            ways = [(way, value, values) for way in table.ask_value]
            ways += [(way, key, keys) for way in table.ask_key]
            for way, right, own in rng.sample(ways, min(each, len(ways))):
                question = way.format(key=key, value=value)
                question = question[0].upper() + question[1:]
                swap = right == value and rng.random() < easy
                pool = [
                    text
                    for text in (foreign if swap else own)
                    if text != right and text.lower() not in question.lower()
                ]
                made.append((question, right, rng.sample(pool, 3)))
    rng.shuffle(made)
    return made
