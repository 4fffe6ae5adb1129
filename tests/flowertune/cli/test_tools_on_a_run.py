"""The tools read what a run writes: plan, inspect, watch and report around one real, tiny run."""

import json
from pathlib import Path

import pytest

from flowertune.cli.main import main
from flowertune.client.load import load_app
from flowertune.run.files import read_run
from tests.apps import rendered, settings
from tests.small_runs import NODES, small_run


@pytest.fixture
def run() -> tuple[dict, Path]:
    """The run-config and the folder of a run of two rounds, with two clients in each."""
    return small_run().cfg, small_run().folder


@pytest.fixture
def typed(run, tmp_path, capsys):
    """Types a command for the app with the run's settings; returns what it printed."""
    file = tmp_path / "settings.toml"
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in run[0].items()))

    def call(*words: str) -> str:
        assert main([*words, "--app", str(rendered("finance")), "--run-config", str(file)]) == 0
        return capsys.readouterr().out

    return call


def test_the_plan_was_right(run, typed):
    planned = json.loads(typed("plan", "--supernodes", str(NODES), "--json"))["communication"]
    # The plan is of adapters; names, settings and questions before the first round come on top.
    assert 0 <= read_run(run[1]).last["total-mib"] - planned["counted-mib"] < 0.02


def test_the_data_report_is_the_runs_own(run, typed):
    about = read_run(run[1]).about
    inspected = json.loads(typed("inspect", "--supernodes", str(NODES), "--json"))
    # How many rows differ in all partitions together is known to who has them all.
    assert inspected["unique-rows"] and about["data"]["unique-rows"] is None
    assert about["data"] == {**inspected, "unique-rows": None}


def test_its_rows_can_be_inspected(typed):
    out = typed("inspect", "--supernodes", str(NODES), "--partition", "3", "--row", "9")
    assert "partition 3, row 9: " in out and ">>>" in out
    assert "40 rows in 4 partitions of 10 rows" in out


def test_another_split_of_its_rows_can_be_looked_at(run, tmp_path, capsys):
    other = {"static.partitioner.name": "size", "dataset.partitioner-options": "sizes=9/5"}
    answers = {"static.dataset.answer": "{instruction}"}  # one label for all
    file, plot = tmp_path / "settings.toml", tmp_path / "split.svg"
    lines = (f"{key} = {json.dumps(v)}\n" for key, v in {**run[0], **other, **answers}.items())
    file.write_text("".join(lines))
    where = ["--app", str(rendered("finance")), "--run-config", str(file), "--supernodes", "2"]
    assert main(["inspect", *where, "--rows", "0", "--plot", str(plot)]) == 0
    said = "dealt out by size (sizes 9/5): 5 to 9 rows in a partition, 26 of 40 rows in none"
    out = capsys.readouterr().out
    assert said in out and "14 rows in 2 partitions of 5 to 9 rows" in out
    assert [line.split() for line in out.splitlines()[-2:]] == [["0", "9"], ["1", "5"]]
    assert plot.read_text().count("Add one.") == 1


def test_it_can_be_watched(run, typed):
    out = typed("watch", str(run[1])).splitlines()
    assert out[0].startswith("run 77: finance") and out[0].endswith("unofficial, finished")
    assert out[2].startswith("round 2/2 | 2 clients | loss ") and "tokens/s" in out[2]
    assert out[-1] == "finished after round 2 of 2"


def test_it_is_listed_and_found_by_its_id(run, typed):
    assert typed("runs").splitlines()[1].split()[:3] == ["77", "finished", "2/2"]
    assert typed("watch", "77", "--once") == typed("watch", str(run[1]))


def test_it_can_be_reported(run, typed):
    folder = run[1]
    assert typed("report", str(folder)) == f"{folder / 'report.html'}\n"
    html = (folder / "report.html").read_text("utf-8")
    manifest = json.loads((folder / "peft_2" / "manifest.json").read_text())
    for part in (
        manifest["adapter-sha256"],
        "40 rows in 4 partitions of 10 rows",
        f"{manifest['rows-visited']:.1%} of the rows",
        "SuperNodes",
        manifest["versions"]["transformers"],
    ):
        assert part in html
    assert "NOT as saved" not in html


def test_a_page_that_cannot_be_written_is_one_sentence(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    page = tmp_path / "file" / "run.html"
    assert main(["report", str(run[1]), "--output", str(page)]) == 1
    err = capsys.readouterr().err
    assert f"{page} cannot be written: " in err and "--output" in err and err.count("\n") == 1


def test_it_left_event_files(run):
    assert (run[1] / "tensorboard").is_dir()


def test_the_app_of_a_folder_is_loaded_with_its_functions():
    app = load_app(rendered("finance"))
    assert app.functions.lora_config(settings({})).r == 32
