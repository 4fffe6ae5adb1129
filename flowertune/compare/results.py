"""What came of a comparison: a row for each run, and means with intervals over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from flowertune.base.student import quantile
from flowertune.compare.grid import BASE, CENTRALISED, LOCAL, METHOD, Cell
from flowertune.run.files import RunFiles

SCORE, HELD_OUT, TRAIN_LOSS = "score", "held-out-loss", "train-loss"
RESIDUAL, DRIFT, MIB, TOKENS = "residual", "drift", "mib", "tokens"
SECONDS, MEMORY, ROUNDS = "seconds", "peak-mib", "rounds"
NUMBERS = (
    SCORE, HELD_OUT, TRAIN_LOSS, RESIDUAL, DRIFT, MIB, TOKENS, SECONDS, MEMORY, ROUNDS,
)  # fmt: skip
COMPARED = (SCORE, HELD_OUT)  # numbers of which the difference from the first method is shown


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, and half of its 95 % interval (Student's t); None for fewer than two."""

    mean: float
    half: float | None
    seeds: int


@dataclass(frozen=True)
class Line:
    """One line of the table: a method or an arm, under one choice of the varied settings.

    Attributes
    ----------
    means : dict[str, Mean]
        By number; one that no run has is missing.
    differences : dict[str, Mean]
        From the first method, seed by seed: equal seeds have equal rows and equal first adapters.
    spread : dict[str, tuple[float, float]]
        The least and the largest over clients, of the local arm.
    failed : tuple[str, ...]
        Why runs of it failed.
    """

    name: str
    kind: str
    varied: tuple[tuple[str, Any], ...]
    means: dict[str, Mean] = field(default_factory=dict)
    differences: dict[str, Mean] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    failed: tuple[str, ...] = ()


def mean_of(values: Sequence[float]) -> Mean:
    """Return the mean of independent values, one of each seed, with its interval."""
    count = len(values)
    half = None
    if count > 1:
        half = quantile(0.975, count - 1) * stdev(values) / math.sqrt(count)
    return Mean(fmean(values), half, count)


def row_of(
    cell: Cell, run: RunFiles | None, about: Mapping[str, Any], score: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is known of one run, flat, as compare.csv and compare.json have it.

    Parameters
    ----------
    run : RunFiles | None
        None where it has not begun.
    about : Mapping[str, Any]
        What was measured once it was done.
    score : Mapping[str, Any]
        Its score; empty where it has none.
    """
    rounds = run.rounds if run else []
    residuals = [line["residual"] for line in rounds if "residual" in line]
    drifts = [line["drift"] for line in rounds if "drift" in line]
    return {
        "name": cell.name,
        "kind": cell.kind,
        "method": cell.method,
        "options": cell.options,
        "seed": cell.seed,
        "client": cell.partitions[0] if cell.kind == LOCAL else None,
        "varied": dict(cell.varied),
        ROUNDS: len(rounds),
        "planned-rounds": cell.rounds,
        SCORE: None,
        **score,
        HELD_OUT: about.get(HELD_OUT),
        TRAIN_LOSS: rounds[-1].get("train-loss") if rounds else None,
        RESIDUAL: fmean(residuals) if residuals and cell.kind == METHOD else None,
        DRIFT: fmean(drifts) if drifts and cell.kind == METHOD else None,
        # Nothing travels where there is one machine.
        MIB: run.last.get("total-mib") if run and rounds and cell.kind == METHOD else None,
        TOKENS: sum(line.get("tokens", 0) for line in rounds) if rounds else None,
        SECONDS: sum(line.get("seconds", 0) for line in rounds) if rounds else None,
        MEMORY: about.get("peak-gpu-mib") or about.get(MEMORY),
        "error": about.get("error"),
        "done": about.get("error", ...) is None,
        "run": None if run is None else str(run.folder),
        "library": None if run is None else _library(run.about),
    }


def _library(about: Mapping[str, Any]) -> str | None:
    library = about.get("library")
    return (
        str(library["sha256"])[:12] if isinstance(library, dict) and "sha256" in library else None
    )


def base_row(
    varied: Mapping[str, Any], loss: float | None, score: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is known of the base model: no run, no seed."""
    nothing = dict.fromkeys(NUMBERS)
    return {
        **nothing, "name": BASE, "kind": BASE, "seed": None, "varied": dict(varied), **score,
        HELD_OUT: loss, "error": None, "done": True,
    }  # fmt: skip


def lines_of(rows: Iterable[Mapping[str, Any]]) -> list[Line]:
    """Return the table's lines: methods in their order, then the arms; unfinished runs count not.

    A local arm's number is the mean over its clients, before it is one over seeds.
    """
    groups: dict[tuple[tuple[tuple[str, Any], ...], str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = tuple(row["varied"].items()), row["kind"], row["name"]
        groups.setdefault(key, []).append(row)
    order = [METHOD, BASE, LOCAL, CENTRALISED]
    keys = sorted(groups, key=lambda key: order.index(key[1]))  # stable: methods stay in order
    variants = list(dict.fromkeys(key[0] for key in groups))
    lines = []
    for variant in variants:
        own = [key for key in keys if key[0] == variant]
        first = _by_seed(groups[own[0]]) if own[0][1] == METHOD else {}
        for number, key in enumerate(own):
            lines.append(_line(key, groups[key], first if number else {}))
    return lines


def _line(
    key: tuple[tuple[tuple[str, Any], ...], str, str],
    rows: Sequence[Mapping[str, Any]],
    first: Mapping[str, Mapping[Any, float]],
) -> Line:
    varied, kind, name = key
    numbers = _by_seed(rows)
    means = {number: mean_of(list(by.values())) for number, by in numbers.items() if by}
    if kind == BASE:
        means = {number: Mean(mean.mean, None, 0) for number, mean in means.items()}
    differences = {}
    for number in COMPARED:
        own, other = numbers.get(number, {}), first.get(number, {})
        pairs = [own[seed if kind != BASE else None] - value
                 for seed, value in other.items()
                 if (seed if kind != BASE else None) in own]  # fmt: skip
        if pairs:
            differences[number] = mean_of(pairs)
    spread = {}
    if kind == LOCAL:
        for number in COMPARED:
            values = [row[number] for row in rows if row["done"] and row[number] is not None]
            if values:
                spread[number] = min(values), max(values)
    failed = tuple(dict.fromkeys(str(row["error"]) for row in rows if row["error"]))
    return Line(name, kind, varied, means, differences, spread, failed)


def _by_seed(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[Any, float]]:
    """Return each number by seed; of several runs with one seed their mean, or tokens in all."""
    found: dict[str, dict[Any, list[float]]] = {number: {} for number in NUMBERS}
    for row in rows:
        for number in NUMBERS:
            if row["done"] and row[number] is not None:
                found[number].setdefault(row["seed"], []).append(row[number])
    return {
        number: {
            seed: sum(values) if number in (TOKENS, SECONDS) else fmean(values)
            for seed, values in by.items()
        }
        for number, by in found.items()
    }


def frontier(points: Sequence[tuple[float, float]], more_is_better: bool) -> list[int]:
    """Return the points (MiB, value) that no other beats in both, by MiB; their numbers."""
    sign = 1 if more_is_better else -1
    order = sorted(range(len(points)), key=lambda n: (points[n][0], -sign * points[n][1]))
    best, kept = -math.inf, []
    for n in order:
        if sign * points[n][1] > best:
            best = sign * points[n][1]
            kept.append(n)
    return kept
