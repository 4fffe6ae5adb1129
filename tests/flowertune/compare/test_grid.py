"""The runs that follow from a grid, and the rounds that the equal share gives them."""

from dataclasses import replace
from typing import Any

import pytest

from flowertune.base.errors import UserError
from flowertune.compare.equal import bytes_after, rounds_for_bytes, rounds_for_tokens
from flowertune.compare.grid import (
    ARMS,
    BYTES,
    Cell,
    Grid,
    arm_cells,
    method_cells,
    rows_of_a_round,
)
from flowertune.compare.plan import kind_of, planned_cells, short_cells
from tests.apps import default_settings

MIB = 2**20
STEPS = "train.training-arguments.max-steps"
BATCH = "train.training-arguments.per-device-train-batch-size"


def grid(**more: Any) -> Grid:
    settings = {
        **default_settings("finance"),
        "num-server-rounds": 6, "strategy.fraction-train": 0.5, STEPS: 3, BATCH: 2,
    }  # fmt: skip
    one = Grid((("fedavg", ""), ("fedprox", "mu=0.1")), (1, 2), settings, nodes=8)
    return replace(one, **more)


def test_every_method_has_every_seed_and_every_choice_of_settings():
    cells = method_cells(grid(vary={"train.transport": ("float32", "int8")}))
    assert len(cells) == len({cell.digest("code") for cell in cells}) == 2 * 2 * 2
    # The first seed of everything comes first: a grid that is stopped has compared something.
    assert [cell.seed for cell in cells] == [1] * 4 + [2] * 4
    last = cells[-1]
    assert last.label == "fedprox (mu=0.1), train.transport=int8, seed 2"
    wanted = {"strategy.name": "fedprox", "strategy.options": "mu=0.1", "seed": 2}
    wanted |= {"train.transport": "int8", "num-server-rounds": 6}
    assert wanted.items() <= last.settings.items()


def test_a_partitioner_is_two_settings_that_vary_as_one():
    one = grid(partitioners=(("iid", ""), ("dirichlet", "alpha=0.1, seed=7")), arms=ARMS)
    cells = planned_cells(one, {})
    dealt = {
        cell.varied: (
            cell.settings["static.partitioner.name"],
            cell.settings["dataset.partitioner-options"],
        )
        for cell in cells
        if cell.kind != "centralised"
    }
    assert dealt == {
        (("partitioner", "iid"),): ("iid", ""),
        (("partitioner", "dirichlet (alpha=0.1, seed=7)"),): ("dirichlet", "alpha=0.1, seed=7"),
    }
    pooled = {cell.settings["static.partitioner.name"] for cell in cells if cell.of == 1}
    assert pooled == {"iid"}  # all rows are in one place


@pytest.mark.parametrize("key", ["results-dir", "resume-from"])
def test_where_a_run_is_written_does_not_make_it_another(key):
    cell = method_cells(grid())[0]
    moved = replace(cell, settings={**cell.settings, key: "/elsewhere"})
    assert moved.folder("code") == cell.folder("code")


def test_anything_else_makes_it_another():
    cell = method_cells(grid())[0]
    others = [
        cell.with_rounds(7).folder("code"),
        replace(cell, partitions=(0,)).folder("code"),
        replace(cell, of=9).folder("code"),
        cell.folder("other code"),
    ]
    assert len({cell.folder("code"), *others}) == 5


def tokens_of(cells: list[Cell], kind: str, seed: int = 1) -> int:
    return sum(c.rounds * rows_of_a_round(c) for c in cells if (c.kind, c.seed) == (kind, seed))


def test_each_arm_trains_on_as_many_rows_as_the_first_method():
    cells = planned_cells(grid(arms=ARMS), {})
    first = cells[0].rounds * rows_of_a_round(cells[0])
    assert first == 6 * 4 * 3 * 2
    assert tokens_of(cells, "local") == tokens_of(cells, "centralised") == first
    local = [cell for cell in cells if cell.kind == "local" and cell.seed == 2]
    assert [cell.partitions for cell in local] == [(0,), (1,), (2,), (3,)]
    assert {cell.of for cell in local} == {8}
    (pooled,) = [cell for cell in cells if cell.kind == "centralised" and cell.seed == 2]
    assert (pooled.partitions, pooled.of, pooled.settings[STEPS]) == ((0,), 1, 12)
    assert {cell.method for cell in arm_cells(grid(arms=ARMS))} == {"fedavg"}


def test_equal_tokens_gives_other_rounds_to_rounds_of_other_sizes():
    cells = planned_cells(grid(vary={BATCH: (2, 4, 5)}), {})
    rounds = {cell.settings[BATCH]: cell.rounds for cell in cells}
    assert rounds == {2: 6, 4: 3, 5: 2}  # 144 rows: 24, 48 and 60 a round


def test_rounds_for_tokens_is_the_nearest_number():
    assert [rounds_for_tokens(144, rows) for rows in (24, 60, 100, 1000)] == [6, 2, 1, 1]


def test_rounds_for_bytes_is_the_largest_number_within_the_budget():
    # RoLoRA's: one factor comes back, then the other.
    measured = [n * MIB for n in (40, 50, 40, 50, 40)]
    before = MIB
    totals = [bytes_after(n, before, measured) for n in range(7)]
    assert totals == [n * MIB for n in (1, 41, 91, 131, 181, 221, 271)]
    for budget in (41, 90.9, 91, 200, 271):
        rounds = rounds_for_bytes(budget, before, measured)
        assert bytes_after(rounds, before, measured) <= budget * MIB
        assert bytes_after(rounds + 1, before, measured) > budget * MIB
    assert rounds_for_bytes(40, before, measured) == 0


def test_messages_that_grow_are_taken_to_grow_on():
    growing = [10, 14, 18, 22, 26]  # FLoRA's: the updates that were merged travel, too
    assert [bytes_after(n, 1, growing) for n in range(9)] == [
        1, 11, 25, 43, 65, 91, 121, 155, 193,
    ]  # fmt: skip
    in_turns = [10, 5, 14, 6, 18]
    assert [bytes_after(n, 0, in_turns) for n in (6, 7, 8, 9)] == [60, 82, 90, 116]


def counts(per_round: dict[str, list[int]], one: Grid) -> dict[Any, list[int]]:
    return {kind_of(cell): [MIB, *per_round[cell.method]] for cell in short_cells(one)}


def test_equal_bytes_gives_each_method_what_the_first_one_takes():
    one = grid(equal=BYTES, arms=ARMS)
    counted = counts({"fedavg": [10 * MIB] * 5, "fedprox": [4 * MIB] * 5}, one)
    cells = planned_cells(one, counted)
    assert {cell.name: cell.rounds for cell in cells if cell.kind == "method"} == {
        "fedavg": 6, "fedprox (mu=0.1)": 15,
    }  # fmt: skip
    assert tokens_of(cells, "centralised") == 6 * 24
    half = planned_cells(replace(one, budget_mib=31), counted)
    assert {cell.name: cell.rounds for cell in half if cell.kind == "method"} == {
        "fedavg": 3, "fedprox (mu=0.1)": 7,
    }  # fmt: skip
    assert tokens_of(half, "centralised") == 3 * 24


def test_a_few_characters_more_are_no_round_less():
    one = grid(equal=BYTES)
    counted = counts({"fedavg": [10 * MIB] * 5, "fedprox": [10 * MIB + 40] * 5}, one)
    assert {cell.rounds for cell in planned_cells(one, counted)} == {6}
    strict = replace(one, budget_mib=61)
    assert [cell.rounds for cell in planned_cells(strict, counted)][:2] == [6, 5]


def test_a_budget_that_is_no_round_names_the_methods_it_is_too_small_for():
    one = grid(equal=BYTES, budget_mib=6)
    counted = counts({"fedavg": [10 * MIB] * 5, "fedprox": [4 * MIB] * 5}, one)
    with pytest.raises(UserError, match=r"--budget is 6\.0 MiB, too few for one round of fedavg;"):
        planned_cells(one, counted)


def test_a_run_that_only_counts_messages_is_short_and_of_one_seed():
    cells = short_cells(grid(vary={"train.transport": ("float32", "int8")}))
    assert [(cell.method, cell.seed) for cell in cells] == [("fedavg", 1), ("fedprox", 1)] * 2
    assert {rows_of_a_round(cell) for cell in cells} == {4}
    assert {cell.rounds for cell in cells} == {5}
