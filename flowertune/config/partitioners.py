"""How rows are dealt out to clients: the partitioners of flwr-datasets by name, their options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowertune.config.options import Option, number, read, text_of
from flowertune.config.settings import IID, WHERE, Rule, Settings, placeholders

NAME, OPTIONS = "static.partitioner.name", "dataset.partitioner-options"
_ANSWER = "static.dataset.answer"
_COLUMN = Rule(str, "the name of a column", lambda v: v != "")
_COUNT = Rule(int, "a whole number of at least 1", lambda v: v >= 1)
_SWITCH = Rule(bool, "true or false")
_MODES = ("random", "deterministic", "first-deterministic")

BY_ANSWER = ""  # the column that static.dataset.answer names
_BY = Option("by", BY_ANSWER, _COLUMN, "the column of the labels; default: that of the answers")
_SEED = Option(
    "seed", 42, Rule(int, "a whole number of at least 0", lambda v: v >= 0),
    "another seed is another split",
)  # fmt: skip


def sizes_in(text: str) -> list[int]:
    """Return the numbers in "300/200/100"; an empty list where it is something else."""
    parts = text.split("/")
    good = all(part.isdecimal() and int(part) > 0 for part in parts)
    return [int(part) for part in parts] if good else []


# What flwr-datasets calls the same things stands in data/partition.py.
TABLE: dict[str, tuple[Option, ...]] = {
    IID: (),
    "dirichlet": (
        _BY,
        Option("alpha", 0.5, number(0, above=True), "the smaller, the more clients differ"),
        Option("min-rows", 1, _COUNT, "drawn again, ten times at most, until each has so many"),
        Option("balanced", False, _SWITCH, "true: no more of a label for who has the average"),
        _SEED,
    ),
    "pathological": (
        _BY,
        Option("classes", 2, _COUNT, "labels of a client"),
        Option(
            "mode", "random", Rule(str, ", ".join(_MODES), lambda v: v in _MODES),
            "which labels a client gets",
        ),
        _SEED,
    ),
    "shard": (
        _BY,
        Option("shards", 2, _COUNT, "shards of a client: rows are sorted by label, and cut"),
        _SEED,
    ),
    "natural-id": (
        Option("by", None, _COLUMN, "the column that says whose a row is"),
        Option("ids", 1, _COUNT, "so many values of it are one client"),
    ),
    "continuous": (
        Option("by", None, _COLUMN, "a column of numbers, by which rows are sorted"),
        Option("strictness", 0.5, number(0, 1), "0: at random; 1: strictly sorted"),
        _SEED,
    ),
    "linear": (),
    "square": (),
    "exponential": (),
    "size": (
        Option(
            "sizes", None, Rule(str, "rows of each client, such as 300/200/100",
            lambda v: bool(sizes_in(v))), "rows of each client",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Scheme:
    """How rows are dealt out: a partitioner's name, and its options as sorted pairs."""

    name: str = IID
    options: tuple[tuple[str, Any], ...] = ()

    def __getitem__(self, option: str) -> Any:
        return dict(self.options)[option]

    @property
    def column(self) -> str | None:
        """The column that decides; None where only numbers of rows do."""
        return dict(self.options).get("by")

    def __str__(self) -> str:
        """Return "dirichlet (alpha 0.1, by output)"; "iid" alone."""
        said = ", ".join(f"{name} {value}" for name, value in self.options)
        return f"{self.name} ({said})" if said else self.name


EVENLY = Scheme()


def problems(run_config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing that is wrong with the partitioner; of unchecked settings.

    A name that there is not, is the business of the table of settings.
    """
    return _read(run_config)[1]


def scheme_of(cfg: Settings) -> Scheme:
    """Return how the rows of a run are dealt out; its settings are checked."""
    return _read(cfg)[0]


def _read(run_config: Mapping[str, Any]) -> tuple[Scheme, list[str]]:
    name = text_of(run_config, NAME)
    if name not in TABLE:
        return EVENLY, []
    values, found = read(text_of(run_config, OPTIONS), TABLE[name], OPTIONS, name)
    if values.get("by") == BY_ANSWER:
        columns = sorted(placeholders(text_of(run_config, _ANSWER)))
        if len(columns) == 1:
            values["by"] = columns[0]
        else:
            found.append(
                f"{NAME} is {name!r}, and {_ANSWER} is made of {len(columns)} columns; say in "
                f"{OPTIONS} by which one rows are dealt out: by=COLUMN ({WHERE})."
            )
    return Scheme(name, tuple(sorted(values.items()))), found
