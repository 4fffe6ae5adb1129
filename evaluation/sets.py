"""What an evaluation set is: where its rows come from, which count, and how each suite asks."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import challenges
from evaluation.columns import Column
from evaluation.model_settings import Way

Rows = list[dict[str, Any]]
SUITES = ("official", "standard")
VERSION = 1.0  # raise it whenever a prompt or an answer rule changes


@dataclass(frozen=True)
class Hub:
    """Where a set is on the Hugging Face hub.

    `splits` are read and joined in this order. A `revision` of None means the newest
    one: it is then looked up and written into the result.
    """

    path: str
    splits: tuple[str, ...]
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What an answer rule made of the responses to one document.

    Attributes:
        answer: the answer as the rule read it.
        points: share of the point, 0 or 1 unless a document has several samples.
        parseable: whether it was one of the allowed answers; None where there is no such list.
    """

    answer: str
    points: Fraction
    parseable: bool | None = None


@dataclass(frozen=True)
class Answer:
    """One row of a set as it was scored."""

    document: dict[str, Any]
    responses: list[Any]
    outcome: Outcome


def point(correct: bool) -> Fraction:
    """One point or none."""
    return Fraction(int(correct))


@dataclass(frozen=True)
class Form:
    """How one suite asks about a set.

    Attributes:
        documents: makes one document of each row; each has a "target", the gold answer.
        config: makes the keys of the lm-eval task: output_type, doc_to_text and so on.
        grade: the answer rule, (document, lm-eval's responses) -> Outcome.
        macro_f1: whether this suite also reports the mean F1 of the classes.
        sampled: whether answers are drawn, so that several per document make sense.
        language: of the programs that `program` makes, for sets whose answers are run.
        program: (document, response) -> the program with its tests.
    """

    documents: Callable[[Rows], Rows]
    config: Callable[[], dict[str, Any]]
    grade: Callable[[dict[str, Any], list[Any]], Outcome]
    macro_f1: bool = False
    sampled: bool = False
    language: str | None = None
    program: Callable[[dict[str, Any], str], str] | None = None


def each(document: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Rows], Rows]:
    """Make `Form.documents` of a function of one row."""
    return lambda rows: [document(row) for row in rows]


@dataclass(frozen=True)
class EvalSet:
    """One evaluation set.

    Attributes:
        name: as in the challenge's data.
        hub: its place on the hub.
        columns: what a row must have, and what may stand there.
        no_columns: what a row must not have: further answers to choose from.
        check: what is wrong with a row whose columns are as they should be; None if nothing is.
        whole: number of rows of the source, before `pick`.
        chance: expected accuracy of a uniform guess among the allowed answers, 0 to 1.
        forms: by suite.
        texts: the question of a row as a training row may have it, then what belongs to it.
        pick: the rows that are scored, in the official order.
        pick_always: apply `pick` to sources that are not whole, too.
        packaged: reads the rows from an installed package, if it is there.
        other_files: further file names that --data-dir may hold, each with its reader.
    """

    name: str
    hub: Hub
    columns: Mapping[str, Column]
    whole: int
    chance: float
    forms: dict[str, Form]
    texts: Callable[[dict[str, Any]], tuple[str, ...]]
    pick: Callable[[Rows], Rows] = field(default=lambda rows: rows)
    pick_always: bool = False
    no_columns: tuple[str, ...] = ()
    check: Callable[[dict[str, Any]], str | None] = field(default=lambda row: None)
    packaged: Callable[[], tuple[Rows, dict[str, Any]] | None] = field(default=lambda: None)
    other_files: dict[str, Callable[[Path], Rows]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The set's file under --data-dir and among the samples."""
        return f"{self.name.replace('-', '_')}.jsonl"

    def form(self, suite: str) -> Form:
        """The set's form in a suite."""
        return self.forms[suite]


@dataclass(frozen=True)
class Challenge:
    """How the official scorer of a challenge works, as far as it is not a matter of single sets.

    Attributes:
        sets: in the leaderboard's order.
        quantization: bits of the base model's weights.
        merge: whether the adapter is merged into the base model.
        seed: of torch.
        replay_batch: batch size that `--official-batching` replays; None if batches never matter.
    """

    sets: Sequence[EvalSet]
    quantization: int = 4
    merge: bool = False
    seed: int = 2024
    replay_batch: int | None = None

    def way(self, suite: str, replayed: bool = False) -> Way:
        """How answers come about in a suite; `replayed` as with `--official-batching`."""
        if suite == "standard":
            return "plain"
        if self.replay_batch is not None:
            return "batches" if replayed else "rows"
        return "drawn" if any(item.form(suite).sampled for item in self.sets) else "greedy"

    def named(self) -> dict[str, EvalSet]:
        """The sets by name."""
        return {item.name: item for item in self.sets}


def scored_challenges() -> list[str]:
    """The challenges that have evaluation sets."""
    facts = {name: challenges.load(name).get("evaluation") or {} for name in challenges.names()}
    return [name for name, evaluation in facts.items() if evaluation.get("sets")]


def module_name(challenge: str) -> str:
    """The module of this package that holds a challenge's sets and is its command."""
    return f"evaluation.{challenge.replace('-', '_')}"


def task_name(challenge: str, item: EvalSet, suite: str) -> str:
    """What lm-eval calls the task of a set."""
    return f"flowertune_{challenge}_{item.name}_{suite}".replace("-", "_")


def of_challenge(challenge: str) -> Challenge:
    """What this package knows of a challenge."""
    return importlib.import_module(module_name(challenge)).CHALLENGE
