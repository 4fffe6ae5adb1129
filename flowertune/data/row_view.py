"""Show a row as the model sees it: what it reads, what it learns, what is cut off."""

from dataclasses import dataclass
from typing import Any

from rich.text import Text

from flowertune.data.tokens import encode

STYLES = {"read": "dim", "learned": "bold green", "cut": "red strike"}
# What stands around a part where there is no color to tell it by.
MARKS = {"read": ("", ""), "learned": (">>>", "<<<"), "cut": ("~~~", "~~~")}


@dataclass(frozen=True)
class Part:
    """A run of a row's tokens that have the same fate: "read", "learned" or "cut"."""

    fate: str
    text: str
    tokens: int


def parts_of(tokenizer: Any, prompt: str, answer: str, seq_length: int) -> list[Part]:
    """Return a row's parts in order: the masked prompt, the supervised answer, what is cut off.

    Special tokens are written out. A row that is cut before its answer has nothing "learned".
    """
    (whole,) = encode(tokenizer, [(prompt, answer)])
    ids = list(whole.ids)
    ends = (
        ("read", min(whole.answer_start, seq_length)),
        ("learned", min(len(ids), seq_length) if whole.answer_start < seq_length else 0),
        ("cut", len(ids)),
    )
    parts, start = [], 0
    for fate, end in ends:
        if end > start:
            parts.append(Part(fate, _text(tokenizer, ids, start, end), end - start))
            start = end
    return parts


def colored(parts: list[Part]) -> Text:
    """Return the row with its parts told apart by color."""
    return Text.assemble(*((printable(part.text), STYLES[part.fate]) for part in parts))


def marked(parts: list[Part]) -> Text:
    """Return the row with its parts told apart by marks, for where there is no color."""
    pieces = (MARKS[part.fate] + (printable(part.text),) for part in parts)
    return Text("".join(before + text + after for before, after, text in pieces))


def legend(color: bool) -> Text:
    """Return the line that explains colors or marks."""
    words = {"read": "masked (read only)", "learned": "supervised (learned)", "cut": "cut off"}
    if color:
        return Text("  ").join(Text(text, STYLES[fate]) for fate, text in words.items())
    return Text("  ".join(text.join(MARKS[fate]) for fate, text in words.items()))


def counts(parts: list[Part]) -> str:
    """Return how many tokens each part has: "131 masked, 3 supervised"."""
    names = {"read": "masked", "learned": "supervised", "cut": "cut off"}
    tokens = {part.fate: part.tokens for part in parts}
    fates = ["read", "learned"] + (["cut"] if "cut" in tokens else [])
    return ", ".join(f"{tokens.get(fate, 0)} {names[fate]}" for fate in fates)


def printable(text: str) -> str:
    """Return the text with control characters written out: data must not steer a terminal."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def _text(tokenizer: Any, ids: list[int], start: int, end: int) -> str:
    # A tokenizer may drop a leading space when it decodes a part by itself.
    before, upto = tokenizer.decode(ids[:start]), tokenizer.decode(ids[:end])
    return (
        upto.removeprefix(before) if upto.startswith(before) else tokenizer.decode(ids[start:end])
    )
