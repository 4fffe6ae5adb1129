"""The tools read what a run writes: plan, inspect, watch and report around one real, tiny run."""

import json

import pytest

from flowertune.cli import report, watch
from flowertune.loggers import tensorboard
from flowertune.planning.data_summary import summarize
from flowertune.planning.estimate import make_plan
from flowertune.run.files import read_run
from template.app.models import load_tokenizer
from tests.apps import rendered, two_small_rounds
from tests.local_grid import run_app
from tests.tiny import save_tiny_llama

NODES = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The settings and the folder of a run of two rounds, with two clients in each."""
    folder = tmp_path_factory.mktemp("run")
    cfg = two_small_rounds(folder, save_tiny_llama(folder / "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLWR_HOME", str(folder / "flwr-home"))
        run_app(cfg, NODES, run_id=77)
    return cfg, folder / "results" / "77"


def test_the_plan_was_right(run):
    cfg, folder = run
    planned = make_plan(cfg, NODES).communication
    assert read_run(folder).last["total-mib"] == round(planned.counted_mib, 3)


def test_the_data_report_is_the_runs_own(run):
    cfg, folder = run
    about = read_run(folder).about
    assert about["data"] == summarize(cfg, load_tokenizer(cfg), NODES)


def test_it_can_be_watched(run, capsys):
    _, folder = run
    assert watch.main([str(folder)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("run 77: finance") and out[0].endswith("unofficial, finished")
    assert out[2].startswith("round 2/2 | 2 clients | loss ") and "tokens/s" in out[2]
    assert out[-1] == "finished after round 2 of 2"


def test_it_can_be_reported(run, capsys):
    _, folder = run
    assert report.main([str(folder), "--app", str(rendered("finance"))]) == 0
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


def test_it_left_event_files_where_they_can_be_written(run):
    _, folder = run
    assert (folder / "tensorboard").is_dir() == tensorboard.installed()
