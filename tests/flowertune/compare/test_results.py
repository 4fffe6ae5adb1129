"""Means, intervals and differences over seeds, and the table and plot made of them."""

import csv
import io
import json
import math
from typing import Any
from xml.etree import ElementTree

import pytest

from flowertune.compare.plot import as_bytes, frontier_figure
from flowertune.compare.results import frontier, lines_of, mean_of
from flowertune.compare.table import as_csv, as_json, markdown, number

T2 = 4.302652729911275  # 97.5 % quantile of Student's t, 2 degrees of freedom


def row(name: str, seed: int | None, loss: float, **more: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("score", "train-loss", "residual", "drift", "mib", "tokens", "seconds", "peak-mib",
         "rounds")
    )  # fmt: skip
    about = {"name": name, "kind": "method", "seed": seed, "varied": {}, "done": True}
    return {**nothing, **about, "held-out-loss": loss, "error": None, **more}


def two_methods() -> list[dict[str, Any]]:
    first = [row("fedavg", seed, loss, mib=10.0) for seed, loss in ((1, 1.0), (2, 2.0), (3, 3.0))]
    other = [row("other", seed, loss, mib=4.0) for seed, loss in ((1, 0.5), (2, 1.4), (3, 2.6))]
    return [*first, *other]


def test_a_mean_has_the_interval_of_students_t():
    mean = mean_of([1.0, 2.0, 3.0])
    assert mean.mean == 2
    assert mean.half == pytest.approx(T2 * 1 / math.sqrt(3), rel=1e-9)
    assert (mean_of([5.0]).half, mean_of([5.0]).seeds) == (None, 1)


def test_differences_are_taken_seed_by_seed():
    first, other = lines_of(two_methods())
    assert not first.differences
    difference = other.differences["held-out-loss"]
    assert difference.mean == pytest.approx(-0.5)
    # Of -0.5, -0.6 and -0.4: a tenth, where the losses themselves spread by one.
    assert difference.half == pytest.approx(T2 * 0.1 / math.sqrt(3))
    assert other.means["held-out-loss"].half == pytest.approx(
        T2 * 1.0535653752852738 / math.sqrt(3)
    )


def test_only_seeds_that_both_have_are_compared():
    rows = two_methods()
    rows[0]["done"] = False
    _, other = lines_of(rows)
    assert other.differences["held-out-loss"].seeds == 2
    assert other.means["held-out-loss"].seeds == 3


def test_the_local_arm_is_a_mean_over_clients_before_it_is_one_over_seeds():
    clients = [
        row("local", seed, loss, kind="local", client=client, tokens=10)
        for seed, losses in ((1, (1.0, 3.0)), (2, (2.0, 6.0)))
        for client, loss in enumerate(losses)
    ]
    local = lines_of([*two_methods(), *clients])[-1]
    assert local.means["held-out-loss"].mean == 3 and local.means["held-out-loss"].seeds == 2
    assert local.spread["held-out-loss"] == (1.0, 6.0)
    assert local.means["tokens"].mean == 20  # of all clients together
    assert "3.000 ± 12.706 (1.000 to 6.000)" in markdown([local], {})


def test_the_base_model_has_no_seed_and_is_compared_with_every_one():
    base = row("base", None, 4.0, kind="base")
    line = lines_of([*two_methods(), base])[-1]
    assert line.means["held-out-loss"].half is None
    assert line.differences["held-out-loss"].mean == 2
    assert line.differences["held-out-loss"].half == pytest.approx(T2 / math.sqrt(3))


def test_choices_of_settings_are_lines_of_their_own():
    rows = [{**each, "varied": {"k": value}} for value in (1, 2) for each in two_methods()]
    rows[-1]["held-out-loss"] = 0.0
    lines = lines_of(rows)
    assert [(line.name, dict(line.varied)["k"]) for line in lines] == [
        ("fedavg", 1), ("other", 1), ("fedavg", 2), ("other", 2),
    ]  # fmt: skip
    assert lines[1].differences["held-out-loss"].mean == pytest.approx(-0.5)
    assert lines[3].differences["held-out-loss"].mean < -1
    assert "| method | k | seeds |" in markdown(lines, {})


def test_a_run_that_failed_is_named_and_counts_for_nothing():
    rows = two_methods()
    rows[4] |= {"error": "it has the loss nan", "done": False, "held-out-loss": None}
    _, other = lines_of(rows)
    assert other.failed == ("it has the loss nan",)
    assert other.means["held-out-loss"].seeds == 2
    assert "other (failed)" in markdown([other], {})


def test_a_table_shows_what_there_is_and_leaves_out_what_there_is_not():
    text = markdown(lines_of(two_methods()), {})
    head, rule, first, other = text.splitlines()
    assert head.count("|") == rule.count("|") == first.count("|")
    assert "score" not in head and "memory" not in head
    assert first == "| fedavg | 3 | 2.000 ± 2.484 | – | 10.0 |"
    assert "-0.500 ± 0.248" in other
    assert number(None, 2) == "–"


def test_csv_and_json_hold_every_run():
    rows = two_methods()
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [line["held-out-loss"] for line in read] == ["1.0", "2.0", "3.0", "0.5", "1.4", "2.6"]
    body = json.loads(json.dumps(as_json(lines_of(rows), rows)))
    assert len(body["runs"]) == 6
    assert body["table"][1]["means"]["held-out-loss"]["mean"] == 1.5


def test_the_frontier_is_what_nobody_beats_in_both():
    points = [(10.0, 1.0), (5.0, 2.0), (5.0, 1.5), (20.0, 1.0), (30.0, 0.5)]
    assert frontier(points, more_is_better=False) == [2, 0, 4]
    assert frontier(points, more_is_better=True) == [1]


def test_the_plot_is_the_same_each_time_and_names_every_line():
    lines = lines_of([*two_methods(), row("base", None, 4.0, kind="base")])
    images = [as_bytes(figure, "svg") for _ in range(2) if (figure := frontier_figure(lines))]
    assert len(images) == 2 and images[0] == images[1]
    texts = {element.text for element in ElementTree.fromstring(images[0]).iter()}
    assert {"fedavg", "other", "base", "MiB communicated"} <= texts
    assert frontier_figure([]) is None
