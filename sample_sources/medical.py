"""The medical training rows: questions from medical_facts.txt, reports from medical.txt."""

import random
from pathlib import Path

from sample_sources import choices, facts, grammar

_FILLS = 7
_SEED = 2024
_REPORT_INSTRUCTION = (
    "As an expert doctor in clinical science and medical knowledge, can you tell me if the "
    "following statement is correct? Answer yes, no, or maybe."
)


def rows() -> list[dict[str, str]]:
    """Training rows; this challenge's question is the input alone, so the text is there."""
    rng = random.Random(_SEED)
    made = _lettered(rng) + _reports(rng)
    rng.shuffle(made)
    return made


def _lettered(rng: random.Random) -> list[dict[str, str]]:
    made = []
    asked = choices.questions(facts.tables("medical_facts.txt"), rng, easy=0.5, each=2)
    for number, (question, right, wrong) in enumerate(asked):
        position = number % len(choices.LETTERS)
        text = choices.body(question, choices.place(right, wrong, position, rng))
        made.append(
            {
                "instruction": choices.SHELL,
                "input": text,
                "output": choices.LETTERS[position],
            }
        )
    return made


def _reports(rng: random.Random) -> list[dict[str, str]]:
    sections = grammar.read(Path(__file__).with_name("medical.txt"))
    words = grammar.banks(sections.pop("banks"))
    made = []
    for answer, patterns in sections.items():
        for pattern in patterns:
            for text in grammar.fill_often(pattern, words, rng, _FILLS):
                text = text.replace(" // ", "\n").replace(" .\n", ".\n").replace(" ?", "?")
                text = text[0].upper() + text[1:] + "\nThe answer is:"
                made.append({"instruction": _REPORT_INSTRUCTION, "input": text, "output": answer})
    return made
