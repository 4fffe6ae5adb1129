"""The base example's training rows: short instructions with helpful answers."""

import random
from pathlib import Path

from sample_sources import facts, grammar

_SEED = 2024
_FACTS = 210
_SUMS = 20
_CONVERSIONS = (
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("kilograms", "grams", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("litres", "millilitres", 1000),
    ("years", "months", 12),
)

Pair = tuple[str, str]


def rows() -> list[dict[str, str]]:
    """Training rows; the base example's question is the instruction alone, so input is empty."""
    rng = random.Random(_SEED)
    sections = grammar.read(Path(__file__).with_name("flowertune_llm.txt"))
    pairs = [
        *_facts(rng),
        *_tips(sections["tips"], rng),
        *(_split(line) for line in sections["answers"]),
        *_rewrites(sections["rewrites"]),
        *_forms(sections),
        *_sorting(_words(sections["words"], " ; "), rng),
        *_sums(_words(sections["names"], " | "), _words(sections["things"], " | "), rng),
        *_conversions(rng),
    ]
    unique = dict(pairs)
    made = [
        {"instruction": instruction, "input": "", "output": output}
        for instruction, output in unique.items()
    ]
    rng.shuffle(made)
    return made


def _split(line: str) -> Pair:
    instruction, answer = line.split(" | ")
    return instruction, answer


def _words(lines: list[str], mark: str) -> list[str]:
    return [word for line in lines for word in line.split(mark)]


def _facts(rng: random.Random) -> list[Pair]:
    pairs = []
    for table in facts.tables():
        for key, value in table.pairs:
            question = table.ask_value[0].format(key=key)
            answer = table.statement.format(key=key, value=value)
            pairs.append((question, answer[0].upper() + answer[1:]))
    return rng.sample(pairs, _FACTS)


def _tips(lines: list[str], rng: random.Random) -> list[Pair]:
    pairs = []
    for line in lines:
        aim, *advice = line.split(" | ")
        three = " ".join(f"{n}. {tip}" for n, tip in enumerate(rng.sample(advice, 3), start=1))
        pairs.append((f"Give me three tips on how to {aim}.", three))
        pairs.append((f"How can I {aim}?", " ".join(rng.sample(advice, 2))))
    return pairs


def _rewrites(lines: list[str]) -> list[Pair]:
    pairs = (_split(line) for line in lines)
    return [(f"Make this sentence more polite: {plain}", polite) for plain, polite in pairs]


def _forms(sections: dict[str, list[str]]) -> list[Pair]:
    asked = {
        "plurals": ('What is the plural of "{}"?', 'The plural of "{}" is "{}".'),
        "past": ('What is the past tense of "{}"?', 'The past tense of "{}" is "{}".'),
    }
    pairs = []
    for heading, (question, answer) in asked.items():
        for pair in _words(sections[heading], " ; "):
            word, form = pair.split(" = ")
            pairs.append((question.format(word), answer.format(word, form)))
    return pairs


def _sorting(words: list[str], rng: random.Random) -> list[Pair]:
    pairs = []
    for _ in range(30):
        picked = rng.sample(words, 4)
        instruction = f"Put these words in alphabetical order: {', '.join(picked)}."
        pairs.append((instruction, ", ".join(sorted(picked))))
    return pairs


def _sums(names: list[str], things: list[str], rng: random.Random) -> list[Pair]:
    pairs = []
    for _ in range(_SUMS):
        name, thing = rng.choice(names), rng.choice(things)
        more, less, times = rng.randint(20, 60), rng.randint(3, 19), rng.randint(2, 9)
        pairs += [
            (
                f"{name} has {more} {thing} and gets {less} more. How many {thing} does {name} "
                "have now?",
                f"{more} + {less} = {more + less}, so {name} has {more + less} {thing}.",
            ),
            (
                f"{name} had {more} {thing} and gave {less} to a friend. How many are left?",
                f"{more} - {less} = {more - less}, so {more - less} {thing} are left.",
            ),
            (
                f"There are {times} boxes with {less} {thing} each. How many {thing} are there "
                "altogether?",
                f"{times} x {less} = {times * less}, so there are {times * less} {thing}.",
            ),
            (
                f"{name} shares {times * less} {thing} equally among {times} children. How many "
                "does each child get?",
                f"{times * less} / {times} = {less}, so each child gets {less} {thing}.",
            ),
        ]
    return pairs


def _conversions(rng: random.Random) -> list[Pair]:
    pairs = []
    for large, small, factor in _CONVERSIONS:
        for amount in rng.sample(range(2, 13), 5):
            answer = f"{amount} {large} are {amount * factor} {small}."
            pairs.append((f"How many {small} are {amount} {large}?", answer))
    return pairs
