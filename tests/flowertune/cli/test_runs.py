"""`flowertune runs` and `flowertune settings`: what an app has, in lines."""

import json
import re

import pytest

from flowertune.cli.main import main
from flowertune.config.settings import table
from tests.apps import default_settings, rendered
from tests.runs import checkpoint, result, run_of_two_states, write_run
from tests.templates import copy_of

APP = rendered("finance")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    return tmp_path / "results"


def lines(results, capsys) -> list[str]:
    words = ["--app", str(APP), "--run-config", f"results-dir='{results}'"]
    assert main(["runs", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_run_is_a_line_the_newest_last(results, capsys):
    write_run(
        results / "9", 3, status="failed", official=False, started="2026-01-02T00:00:00+00:00"
    )
    write_run(results / "10", 10, status="finished", started="2026-01-01T00:00:00+00:00")
    write_run(results / "8", 0, started="2026-01-03T00:00:00+00:00")
    (results / "no-run").mkdir()
    head, *rows, empty, where = lines(results, capsys)
    assert head.split() == ["run", "status", "round", "loss", "MiB", "official", "started"]
    assert [row.split() for row in rows] == [
        ["10", "finished", "10/10", "0.2000", "5,200.0", "yes", "2026-01-01", "00:00:00"],
        ["9", "failed", "3/10", "0.6667", "1,560.0", "no", "2026-01-02", "00:00:00"],
        ["8", "running", "0/10", "-", "-", "yes", "2026-01-03", "00:00:00"],
    ]
    assert len({row.index("2026") for row in rows}) == 1 == len({head.index("started")})
    assert empty == "" and where == f"In {results}"


def test_a_damaged_run_is_a_line_as_well(results, capsys):
    write_run(results / "9", 3)
    write_run(results / "10", 3)
    (results / "10" / "run.json").write_text("{")
    rows = lines(results, capsys)
    assert "damaged" in rows[1] and rows[1].startswith("10 ") and rows[2].startswith("9 ")


def test_no_runs_are_said(results, capsys):
    assert lines(results, capsys) == [f"There are no runs in {results} yet."]


def test_a_run_that_can_go_on_says_how(results, capsys):
    write_run(run_of_two_states(results / "9"), 3, status="stopped")
    *_, where, how = lines(results, capsys)
    assert where == f"In {results}"
    assert how.startswith(f"To go on with 9: flwr run {APP} --stream --run-config \"resume-from='")


def test_two_runs_are_compared(results, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = write_run(results / "9", 3, settings={"seed": 1, "own": float("nan"), "same": 2})
    other = write_run(results / "10", 10, status="finished",
                      settings={"seed": 2, "own": float("nan"), "same": 2, "new": "x"})  # fmt: skip
    digest = checkpoint(other / "peft_10")
    result(tmp_path / "scores" / digest[:12], tuned="80.12")
    words = ["--app", str(APP), "--run-config", f"results-dir='{results}'"]
    assert main(["runs", "9", str(other), *words]) == 0
    rows = [re.split("  +", line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["run", "9", "10"],
        ["new", "-", '"x"'],
        ["seed", "1", "2"],
        ["status", "running", "finished"],
        ["official", "yes", "yes"],
        ["rounds", "3 of 10", "10 of 10"],
        ["loss", "0.6667", "0.2000"],
        ["MiB", "1,560.0", "5,200.0"],
        ["rejected replies", "0", "0"],
        ["time of all rounds", "1 min 00 s", "3 min 20 s"],
        ["official: FPB", "-", "80.12 (18, partial)"],
    ]
    assert main(["runs", str(one), *words]) == 2
    assert "two runs to compare, not 1" in capsys.readouterr().err


def test_all_settings_are_shown_with_the_apps_values(capsys):
    assert main(["settings", "--app", str(APP)]) == 0
    text = capsys.readouterr().out
    values = default_settings("finance")
    for entry in table():
        assert f"{entry.key} = {json.dumps(values[entry.key])}\n" in text
        assert f"allowed: {entry.rule.allowed}" in text


def test_settings_are_found_by_parts_of_their_names(capsys):
    assert main(["settings", "learning-rate", "rank", "lora-r", "--app", str(APP)]) == 0
    text = capsys.readouterr().out
    keys = [line.split(" = ")[0] for line in text.splitlines() if " = " in line and line[0] != " "]
    assert keys == [
        "model.lora.peft-lora-r",
        "model.lora.rank-pattern",
        "train.learning-rate-max",
        "train.learning-rate-min",
    ]
    assert text.endswith("--run-config.\n")


def test_a_participants_own_setting_is_shown_and_a_locked_one_said(tmp_path, capsys):
    app = copy_of(APP, tmp_path / "app")
    file = app / "pyproject.toml"
    file.write_text(file.read_text().replace("\nseed = ", "\nproximal-mu = 0.1\nseed = "))
    assert main(["settings", "proximal", "budget", "--app", str(app)]) == 0
    text = capsys.readouterr().out
    assert "proximal-mu = 0.1\n    a setting of this app's own" in text
    assert "static.budget-mib = 200000\n" in text and "makes a run unofficial" in text


def test_without_an_app_the_defaults_are_shown(tmp_path, capsys):
    assert main(["settings", "seq-length", "fraction", "--app", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "train.seq-length = 512\n" in text
    assert "strategy.fraction-train = (the challenge's)\n" in text
