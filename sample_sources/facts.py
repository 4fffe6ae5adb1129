"""Read facts.txt: tables of pairs with the ways to ask for them."""

from dataclasses import dataclass
from pathlib import Path

from sample_sources import grammar


@dataclass(frozen=True)
class Table:
    """Pairs, questions about the value, questions about the key, and a plain statement.

    The values of two tables of the same ``kind`` could both answer one question.
    """

    name: str
    kind: str
    pairs: tuple[tuple[str, str], ...]
    ask_value: tuple[str, ...]
    ask_key: tuple[str, ...]
    statement: str


def tables(name: str = "facts.txt") -> list[Table]:
    """All tables of a facts file.

    Raises:
        ValueError: a table repeats a key, or asks for a key that its value does not decide.
    """
    sections = grammar.read(Path(__file__).with_name(name))
    return [_table(heading, lines) for heading, lines in sections.items()]


def _table(heading: str, lines: list[str]) -> Table:
    marked: dict[str, list[str]] = {">": [], "<": [], "!": [], "": []}
    for line in lines:
        mark = line[0] if line[0] in "><!" and line[1:2] == " " else ""
        marked[mark].append(line.removeprefix(mark).strip())
    pairs = tuple(
        (key, value)
        for line in marked[""]
        for key, value in (pair.split(" = ", 1) for pair in line.split(" ; "))
    )
    keys, values = zip(*pairs, strict=True)
    name, _, kind = heading.rstrip("*").partition(": ")
    if len(set(keys)) < len(keys):
        raise ValueError(f"table {heading!r} of the facts file repeats a key; give each key once")
    if len(set(values)) < len(values) and not heading.endswith("*"):
        raise ValueError(f"table {heading!r} of the facts file repeats a value; add * to its name")
    return Table(name, kind or name, pairs, tuple(marked[">"]), tuple(marked["<"]), marked["!"][0])
