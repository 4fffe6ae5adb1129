"""The split of a run's rows, in a picture, a table and the page."""

import json
from pathlib import Path

import pytest

from flowertune.cli.main import main
from flowertune.config.partitioners import NAME, OPTIONS
from flowertune.report.facts import collect
from flowertune.report.page import page
from flowertune.report.split import split_of
from flowertune.run.files import read_run
from tests.apps import default_settings, rendered, settings
from tests.runs import write_run

LABELS = ("no", "<b>yes</b>", "$maybe_{$")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    lines = [
        json.dumps({"instruction": f"do {n}", "input": str(n), "output": LABELS[n % 3]})
        for n in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def changes(path: Path | str, name: str, options: str = "") -> dict[str, str]:
    return {"static.dataset.name": str(path), NAME: name, OPTIONS: options}


def test_labels_are_counted_in_each_partition(rows_file):
    split = split_of(settings(changes(rows_file, "shard", "shards=1")), 3)
    assert split.said == ("shard (by output, seed 42, shards 1): 20 to 20 rows in a partition")
    counted = [line.split()[-3:] for line in split.table().splitlines()[2:]]
    assert sorted(sorted(row) for row in counted) == [["0", "0", "20"]] * 3
    (axes,) = split.figure().axes
    # Three colors, three partitions: of nine bars three are 20 high.
    heights = [
        round(patch.get_path().get_extents(patch.get_patch_transform()).height)
        for patch in axes.patches
    ]
    assert sorted(heights) == [0] * 6 + [20] * 3


def test_rows_of_no_partition_are_said(rows_file):
    split = split_of(settings(changes(rows_file, "size", "sizes=30/10")), 2)
    assert split.said.endswith("10 to 30 rows in a partition, 20 of 60 rows in none")


def test_too_many_labels_are_not_drawn(rows_file):
    of_answers = {"static.dataset.answer": "{input}"}
    split = split_of(settings({**changes(rows_file, "linear"), **of_answers}), 3)
    assert (split.column, split.why) == (None, "'input' has 60 values, too many to draw")


def about(path: Path | str, *of: str) -> dict:
    flat = {**default_settings("finance"), **changes(path, *of)}
    return {"settings": flat, "supernodes": 3, "official": False}


def test_the_page_shows_the_split_and_escapes_its_labels(rows_file, tmp_path, capsys):
    folder = write_run(tmp_path / "7", done=2, **about(rows_file, "dirichlet"))
    assert main(["report", str(folder), "--app", str(rendered("finance"))]) == 0
    html = (folder / "report.html").read_text("utf-8")
    drawn = html.partition("<h2>Data</h2>")[2].partition("<h2>")[0]
    assert "dealt out by dirichlet (alpha 0.5, balanced False, by output" in drawn
    assert drawn.count("<svg") == 1 and "&lt;b&gt;yes&lt;/b&gt;" in drawn and "<b>" not in drawn
    assert "$maybe_{$" in drawn


def test_where_the_rows_are_not_the_page_says_so(tmp_path, capsys):
    for name, said in ((tmp_path / "gone.jsonl", "there is no file"), ("o/n", "not on this mach")):
        folder = write_run(tmp_path / "7", done=2, **about(name, "dirichlet"))
        assert main(["report", str(folder), "--app", str(rendered("finance"))]) == 0
        html = (folder / "report.html").read_text("utf-8")
        assert "how its rows were dealt out is not drawn" in html and said in html


def test_an_even_split_is_not_looked_at(rows_file, tmp_path):
    folder = write_run(tmp_path / "7", done=2, **about(rows_file, "iid"))
    assert "dealt out" not in page(collect(read_run(folder), None))
