"""What one evaluation set is: where its rows come from, which of them are scored, and how."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Hub:
    """Where a set lies on the Hugging Face hub.

    `splits` are read in this order and put behind each other. A `revision` of None means the newest
    one: it is then looked up and written into the result.
    """

    path: str
    splits: tuple[str, ...]
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What the answer rule made of one response."""

    answer: str
    correct: bool
    legal: bool


@dataclass(frozen=True)
class EvalSet:
    """One evaluation set in its official form.

    Attributes:
        name: also the file name under --data-dir, `<name>.jsonl`, in the schema of the hub.
        columns: what a row must have.
        whole: number of rows of the source, before `pick`.
        pick: the rows that are scored, in the official order, out of the whole source.
        document: a row as {"context": prompt, "target": gold answer}.
        generation: lm-eval generation_kwargs, with the keys `evaluation.lm` adds.
        judge: the official answer rule, (document, response) -> Outcome.
        chance: expected accuracy of a uniform guess among the legal answers, 0 to 1.
    """

    name: str
    hub: Hub
    columns: tuple[str, ...]
    whole: int
    document: Callable[[dict[str, Any]], dict[str, Any]]
    generation: dict[str, Any]
    judge: Callable[[dict[str, Any], str], Outcome]
    chance: float
    pick: Callable[[Rows], Rows] = field(default=lambda rows: rows)


def module_name(challenge: str) -> str:
    """The module of this package that holds a challenge's sets and is its command."""
    return f"evaluation.{challenge.replace('-', '_')}"


def of_challenge(challenge: str) -> dict[str, EvalSet]:
    """The sets of a challenge by name, in the leaderboard's order."""
    return {item.name: item for item in importlib.import_module(module_name(challenge)).SETS}
