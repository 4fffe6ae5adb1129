"""What a comparison asks for, and the runs that follow from it."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from flowertune.base.hashing import json_sha256
from flowertune.config.checks import STEPS, clients_per_round
from flowertune.methods.options import NAME, OPTIONS
from flowertune.methods.registry import FEDAVG

BYTES, TOKENS = "bytes", "tokens"
BASE, LOCAL, CENTRALISED = "base", "local", "centralised"
ARMS = (BASE, LOCAL, CENTRALISED)
METHOD = "method"
ROUNDS, SEED, FRACTION = "num-server-rounds", "seed", "strategy.fraction-train"
LEAST, MODE = "strategy.min-clients", "aggregation.mode"
PARTITIONER = "partitioner"  # what two settings vary together as
DEALT, DEALT_HOW = "static.partitioner.name", "dataset.partitioner-options"
IID = "iid"
# Where a run is written says nothing of what it is.
PLACES = ("results-dir", "resume-from")


@dataclass(frozen=True)
class Grid:
    """Methods, seeds and settings to compare, each with each.

    Attributes
    ----------
    methods : tuple[tuple[str, str], ...]
        Names and options, as ``strategy.name`` and ``strategy.options`` take them. The first is the
        one that the others are compared with.
    vary : Mapping[str, tuple[Any, ...]]
        The values of more settings, by key.
    partitioners : tuple[tuple[str, str], ...]
        Names and options of partitioners; none for that of the settings.
    settings : Mapping[str, Any]
        All other settings of every run.
    nodes : int
        SuperNodes, each with a partition.
    arms : tuple[str, ...]
        Reference arms: some of ``ARMS``.
    equal : str
        What all methods have the same of: ``BYTES`` or ``TOKENS``.
    budget_mib : float | None
        The bytes for ``BYTES``; None for what the first method takes.
    """

    methods: tuple[tuple[str, str], ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    nodes: int
    vary: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    partitioners: tuple[tuple[str, str], ...] = ()
    arms: tuple[str, ...] = ()
    equal: str = TOKENS
    budget_mib: float | None = None


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes
    ----------
    kind : str
        ``METHOD``, or the reference arm that the run is of.
    varied : tuple[tuple[str, Any], ...]
        What varies in the grid, but for method and seed: settings, and the partitioner.
    settings : Mapping[str, Any]
        All settings of the run.
    partitions : tuple[int, ...]
        The partitions that its SuperNodes hold ...
    of : int
        ... of so many.
    """

    kind: str
    method: str
    options: str
    seed: int
    varied: tuple[tuple[str, Any], ...]
    settings: Mapping[str, Any]
    partitions: tuple[int, ...]
    of: int

    @property
    def name(self) -> str:
        """How the table calls it: the method with its options, or the arm."""
        return titled(self.method, self.options) if self.kind == METHOD else self.kind

    @property
    def label(self) -> str:
        """How a line of progress calls it."""
        more = [f"{key}={value}" for key, value in self.varied] + [f"seed {self.seed}"]
        if self.kind == LOCAL:
            more.append(f"client {self.partitions[0]}")
        return ", ".join([self.name, *more])

    @property
    def rounds(self) -> int:
        """How many rounds it has."""
        return self.settings[ROUNDS]

    def with_rounds(self, rounds: int) -> "Cell":
        """Return the same run with another number of rounds."""
        return replace(self, settings={**self.settings, ROUNDS: rounds})

    def digest(self, code: str) -> str:
        """Return what tells this run from others, given the digest of the app's code."""
        settings = {key: value for key, value in self.settings.items() if key not in PLACES}
        return json_sha256(
            {"settings": settings, "partitions": self.partitions, "of": self.of, "code": code}
        )

    def folder(self, code: str) -> str:
        """Return the name of its folder: for people, and unlike those of all other runs."""
        name = re.sub(r"[^a-z0-9.=-]+", "_", self.label.lower()).strip("_.")[:60]
        return f"{name}-{self.digest(code)[:10]}"


def titled(method: str, options: str) -> str:
    """Return a name with its options, as a table shows it."""
    return f"{method} ({options})" if options else method


def method_cells(grid: Grid) -> list[Cell]:
    """Return the runs of all methods, the first seed of every method first; rounds as given."""
    return [
        _cell(grid, METHOD, method, seed, varied)
        for seed in grid.seeds
        for varied in _variants(grid)
        for method in grid.methods
    ]


def arm_cells(grid: Grid) -> list[Cell]:
    """Return the runs of the reference arms; the base model has none.

    Local: as many clients as a round has, each alone on its rows, with the steps that a client has
    in a round. Centralised: all rows in one place, with the steps of all clients of a round. So
    each arm trains on as many tokens as the first method does with the rounds that were given.
    """
    cells = []
    for seed in grid.seeds:
        for varied in _variants(grid):
            whole = _cell(grid, METHOD, (FEDAVG, ""), seed, varied)
            clients = clients_per_round(whole.settings[FRACTION], grid.nodes)
            alone = {**whole.settings, FRACTION: 1.0, LEAST: 0, MODE: "all_at_once"}
            if LOCAL in grid.arms:
                cells += [
                    replace(whole, kind=LOCAL, settings=alone, partitions=(partition,))
                    for partition in range(clients)
                ]
            if CENTRALISED in grid.arms:
                pooled = {**alone, STEPS: clients * alone[STEPS]}
                if pooled[DEALT] != IID:  # nothing is dealt out
                    pooled |= {DEALT: IID, DEALT_HOW: ""}
                cells.append(
                    replace(whole, kind=CENTRALISED, settings=pooled, partitions=(0,), of=1)
                )
    return cells


def rows_of_a_round(cell: Cell) -> int:
    """Return how many rows all clients of a round train on."""
    clients = clients_per_round(cell.settings[FRACTION], len(cell.partitions))
    arguments = "train.training-arguments."
    batch = cell.settings[f"{arguments}per-device-train-batch-size"]
    return clients * cell.settings[STEPS] * batch * cell.settings[
        f"{arguments}gradient-accumulation-steps"
    ]  # fmt: skip


def _cell(
    grid: Grid,
    kind: str,
    method: tuple[str, str],
    seed: int,
    varied: tuple[tuple[str, Any], ...],
) -> Cell:
    name, options = method
    settings = {
        **grid.settings, **settings_of(varied), NAME: name, OPTIONS: options, SEED: seed,
    }  # fmt: skip
    return Cell(kind, name, options, seed, varied, settings, tuple(range(grid.nodes)), grid.nodes)


def settings_of(varied: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return the settings that one choice of what varies stands for."""
    settings = dict(varied)
    if PARTITIONER in settings:
        name, _, options = settings.pop(PARTITIONER).partition(" (")
        settings |= {DEALT: name, DEALT_HOW: options.removesuffix(")")}
    return settings


def _variants(grid: Grid) -> list[tuple[tuple[str, Any], ...]]:
    axes = {key: list(values) for key, values in grid.vary.items()}
    if grid.partitioners:
        axes = {PARTITIONER: [titled(*pair) for pair in grid.partitioners], **axes}
    pairs = [[(key, value) for value in values] for key, values in axes.items()]
    return list(itertools.product(*pairs))
