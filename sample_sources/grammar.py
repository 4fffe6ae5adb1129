"""Read sentence patterns from a text file and fill them in, always the same way for one seed."""

import random
import re
from pathlib import Path

_SLOT = re.compile(r"\{([a-z_]+|\d+-\d+)\}")
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


def read(path: Path) -> dict[str, list[str]]:
    """Sections of a pattern file, by heading: ``[heading]``, then one pattern a line.

    Blank lines and lines that start with ``#`` are skipped.
    """
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            lines = sections.setdefault(line[1:-1], [])
        elif line.strip() and not line.startswith("#"):
            lines.append(line.strip())
    return sections


def banks(lines: list[str]) -> dict[str, list[str]]:
    """Word banks from lines of the form ``name = first | second | third``."""
    named = (line.split(" = ", 1) for line in lines)
    return {name: words.split(" | ") for name, words in named}


def fill(pattern: str, words: dict[str, list[str]], rng: random.Random) -> str:
    """One sentence from a pattern; a slot that it names twice gets the same word both times."""
    chosen: dict[str, str] = {}

    def slot(match: re.Match[str]) -> str:
        name = match[1]
        if name[0].isdigit():
            low, high = name.split("-")
            return str(rng.randint(int(low), int(high)))
        return chosen.setdefault(name, rng.choice(words[name]))

    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
    while _SLOT.search(text):
        text = _SLOT.sub(slot, text)
    return text


def fill_often(
    pattern: str, words: dict[str, list[str]], rng: random.Random, times: int
) -> list[str]:
    """Up to ``times`` different sentences from one pattern (fewer if it has no more to give)."""
    found: dict[str, None] = {}
    for _ in range(times * 20):
        found.setdefault(fill(pattern, words, rng))
        if len(found) == times:
            break
    return list(found)
