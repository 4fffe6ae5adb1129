"""From a grid to its runs, each with the rounds that the equal share gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_jsonl
from flowertune.base.text import MIB
from flowertune.compare.equal import MEASURED, bytes_after, rounds_for_bytes, rounds_for_tokens
from flowertune.compare.grid import (
    BYTES,
    FRACTION,
    LOCAL,
    ROUNDS,
    Cell,
    Grid,
    arm_cells,
    method_cells,
    rows_of_a_round,
    settings_of,
)
from flowertune.config.checks import STEPS, clients_per_round
from flowertune.run.files import ROUNDS as LINES

# Of a run whose messages are counted nothing else matters.
SHORT = {
    ROUNDS: MEASURED,
    STEPS: 1,
    "train.training-arguments.per-device-train-batch-size": 1,
    "train.training-arguments.gradient-accumulation-steps": 1,
    "train.save-every-round": MEASURED,
}
# Messages of equal arrays differ by a few characters, such as the digits of a run's id.
SLACK = 1.0001
Kind = tuple[str, str, tuple[tuple[str, Any], ...]]


def kind_of(cell: Cell) -> Kind:
    """Return what runs that differ by their seed only have in common."""
    return cell.method, cell.options, cell.varied


def short_cells(grid: Grid) -> list[Cell]:
    """Return a short run for each method and variant, to count the bytes of its messages."""
    return [
        replace(cell, settings={**cell.settings, **SHORT})
        for cell in method_cells(replace(grid, seeds=grid.seeds[:1]))
    ]


def counted_bytes(run: Path) -> list[int]:
    """Return the bytes before round 1 of a run, and of each of its rounds, both directions."""
    lines = read_jsonl(run / LINES)
    rounds = [line["bytes-down"] + line["bytes-up"] for line in lines]
    return [lines[0]["sent-bytes"] + lines[0]["received-bytes"] - rounds[0], *rounds]


def planned_cells(grid: Grid, counted: Mapping[Kind, Sequence[int]]) -> list[Cell]:
    """Return every run of a grid, with its rounds.

    Parameters
    ----------
    counted : Mapping[Kind, Sequence[int]]
        For equal bytes, what ``counted_bytes`` says of each method's short run.

    Raises
    ------
    UserError
        If the bytes are too few for one round of a method; names them all.
    """
    cells = method_cells(grid)
    first = cells[0]
    rounds = first.rounds
    if grid.equal == BYTES:
        before, *measured = counted[kind_of(first)]
        budget = grid.budget_mib
        if budget is None:
            budget = bytes_after(rounds, before, measured) * SLACK / MIB
        cells = [
            cell.with_rounds(rounds_for_bytes(budget, of[0], of[1:]))
            for cell in cells
            if (of := counted[kind_of(cell)])
        ]
        if short := list(dict.fromkeys(cell.name for cell in cells if not cell.rounds)):
            raise UserError(
                f"--budget is {budget:.1f} MiB, too few for one round of {', '.join(short)}; give "
                "more, or leave these methods out."
            )
        rounds = cells[0].rounds
    rows = rounds * rows_of_a_round(first)
    if grid.equal != BYTES:
        cells = [c.with_rounds(rounds_for_tokens(rows, rows_of_a_round(c))) for c in cells]
    arms = [c.with_rounds(rounds_for_tokens(rows, _rows_of_arm(c, grid))) for c in arm_cells(grid)]
    return [cell for seed in grid.seeds for cell in [*cells, *arms] if cell.seed == seed]


def _rows_of_arm(cell: Cell, grid: Grid) -> int:
    """Return how many rows all runs of an arm train on in a round, for one seed."""
    if cell.kind != LOCAL:
        return rows_of_a_round(cell)
    fraction = {**grid.settings, **settings_of(cell.varied)}[FRACTION]
    return rows_of_a_round(cell) * clients_per_round(fraction, grid.nodes)
