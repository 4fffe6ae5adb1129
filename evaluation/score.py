"""Answer rules of the official scorers, as functions of plain text.

They are kept with their oddities: a changed rule is a changed score.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

SENTIMENTS = ("negative", "neutral", "positive")
_SEPARATOR = "Answer: "
# Some tokenizers tidy blanks before punctuation when they decode; the longest such rewrite spans
# four characters.
_TIDY_WIDTH = 4


def sentiment_label(text: str) -> str:
    """Map free text to a label: "positive" anywhere wins, then "negative", anything else is
    neutral.
    """
    if "positive" in text or "Positive" in text:
        return "positive"
    if "negative" in text or "Negative" in text:
        return "negative"
    return "neutral"


def sentiment_text(row: str) -> str:
    """The part of a decoded row (prompt and answer) that is searched for a label."""
    parts = row.split(_SEPARATOR)
    return parts[1] if len(parts) > 1 else "None"


def sentiment_answer(row: str) -> str:
    """The label of a decoded row (prompt and answer)."""
    return sentiment_label(sentiment_text(row))


def sentiment_parseable(row: str) -> bool:
    """Whether the answer names any of the three labels; if not, the rule calls it neutral."""
    text = sentiment_text(row).lower()
    return any(label in text for label in SENTIMENTS)


def sentiment_settled(row: str) -> bool:
    """Whether no continuation of `row` can change `sentiment_answer(row)`.

    True once the searched part holds "positive", or once a second "Answer: " has closed it. The
    word "negative" settles nothing, because a later "positive" wins.
    """
    parts = row.split(_SEPARATOR)
    if len(parts) < 2:
        return False
    if "positive" in parts[1] or "Positive" in parts[1]:
        return True
    return len(parts) > 2 and len(_SEPARATOR.join(parts[2:])) >= _TIDY_WIDTH


_LETTERS = ("a", "b", "c", "d", "e")
_YES_NO = ("yes", "no")


def exam_answer(text: str, kind: str) -> str:
    """What the official scorer compares with the gold answer (in lower case).

    Args:
        text: the new tokens, decoded.
        kind: "letter" or "boolean".

    Returns:
        one of a to e, yes, no, if the cleaned text is one; else `text` in lower case, uncleaned.
        So "maybe" counts only if nothing stands around it.
    """
    raw = text.lower()
    cleaned = raw
    if "\n##" in raw:
        cleaned = raw.split("\n##")[1].split("\n")[0].strip()
    cleaned = " ".join(re.sub(r"[^a-zA-Z0-9]", " ", cleaned).split())
    if kind == "boolean":
        for doubled, single in (
            ("yesyes", "yes"),
            ("nono", "no"),
            ("yesno", "yes"),
            ("noyes", "no"),
        ):
            if doubled in cleaned:
                cleaned = cleaned.replace(doubled, single)
                break
    else:
        cleaned = cleaned[:1]
    return cleaned if cleaned in (*_LETTERS, *_YES_NO) else raw


def cut_at(text: str, stop_words: Iterable[str]) -> str:
    """`text` up to the first of the stop words."""
    places = [text.find(word) for word in stop_words]
    return text[: min((index for index in places if index >= 0), default=len(text))]


@dataclass(frozen=True)
class Settled:
    """When a row may stop early.

    `decides(row_text)` must be true only if no continuation can change the answer. `words` are what
    the newest text has to contain before `decides` is asked at all; they save work and cannot
    change a result.
    """

    words: tuple[str, ...]
    decides: Callable[[str], bool]


SETTLED = {"sentiment": Settled(("positive", "Positive", _SEPARATOR.strip()), sentiment_settled)}
