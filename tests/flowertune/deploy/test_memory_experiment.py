"""The Aggregation Memory Experiment: commands in, table and plot out."""

import json
import subprocess
from pathlib import Path

import pytest

from flowertune.cli.main import main
from flowertune.deploy import memory_experiment as experiment
from tests.apps import default_settings, rendered

GB = {"small": 1.0, "large": 9.0}


def write_run(results: Path, number: int, model: str, clients: int, mode: str) -> None:
    """What a run leaves behind; all_at_once refuses the large model."""
    run = results / str(number)
    run.mkdir()
    refused = mode == "all_at_once" and model == "large"
    reason = "it would take about 30.1 GB of memory" if refused else None
    about = {"status": "failed" if refused else "finished", "reason": reason}
    (run / "run.json").write_text(json.dumps(about))
    if not refused:
        peak = 900.0 if mode == "layerwise" else 400.0 + 3000 * clients * GB[model]
        found = {
            "model-bytes": GB[model] * 1e9, "peak-rss-mib": peak + 100, "sha256": "s",
            "peak-anonymous-mib": peak, "before-anonymous-mib": 300.0, "gb-per-s": 0.4,
        }  # fmt: skip
        line = {"received-bytes": clients * GB[model] * 1e9, "seconds": 5.0, "aggregation": found}
        (run / "rounds.jsonl").write_text(json.dumps(line) + "\n")


@pytest.fixture
def typed(monkeypatch):
    """flwr, replaced: the commands that were typed."""
    commands = []

    def run(words, **options):
        commands.append(words)
        config = words[words.index("--run-config") + 1]
        values = dict(part.split("=", 1) for part in config.split())
        clients = int(words[-1].split()[0].split("=")[1])
        model, mode = values["model.name"].strip("'"), values["aggregation.mode"].strip("'")
        results = Path(values["results-dir"].strip("'"))
        write_run(results, len(commands), model, clients, mode)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(experiment.subprocess, "run", run)
    return commands


def test_every_cell_is_a_run_and_the_table_and_plot_show_all(typed, tmp_path, capsys):
    app = rendered("flowertune-llm")
    out = tmp_path / "out"
    words = ["--app", str(app), "--models", "small, large", "--clients", "2,5"]
    assert main(["aggregate", *words, "--out", str(out)]) == 0
    assert len(typed) == 8
    settings = default_settings("flowertune-llm")
    for command in typed:
        config = command[command.index("--run-config") + 1]
        assert {part.split("=")[0] for part in config.split()} <= set(settings)
    table = (out / "memory.md").read_text()
    assert "| small | 1.00 | 5 | layerwise | 1,000 | 900 | 300 | 5.00 | 5.0 | 0.40 |" in table
    assert "| small | 1.00 | 2 | all_at_once | 6,500 | 6,400 |" in table
    assert "| large |  | 2 | all_at_once | it would take about 30.1 GB of memory |" in table
    assert table.split("\n\n")[0] in capsys.readouterr().out
    assert (out / "memory.png").stat().st_size > 10_000
    assert len((out / "memory.jsonl").read_text().splitlines()) == 8


def test_a_path_starts_where_the_command_is_typed_and_no_result_is_a_failure(
    typed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(GB, str(tmp_path / "mine"), 2.0)
    words = ["aggregate", "--app", str(rendered("flowertune-llm")), "--clients", "2", "--out", "o"]
    assert main([*words, "--models", "./mine", "--modes", "layerwise"]) == 0
    (command,) = typed
    assert f"model.name='{tmp_path / 'mine'}'" in command[command.index("--run-config") + 1]
    assert main([*words, "--models", "large", "--modes", "all_at_once"]) == 1


def test_what_flwr_said_is_shown_when_it_leaves_no_run(monkeypatch, tmp_path, capsys):
    def fails(words, **options):
        return subprocess.CompletedProcess(words, 1, "no such connection\n", "")

    monkeypatch.setattr(experiment.subprocess, "run", fails)
    app = rendered("flowertune-llm")
    assert main(["aggregate", "--app", str(app), "--out", str(tmp_path)]) == 1
    assert "no such connection" in capsys.readouterr().err
