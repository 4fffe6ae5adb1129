"""The commands of the README, typed for real: 50 SuperNodes, a tiny model, two rounds."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def log(shell, app, small) -> str:
    config = f"{small} profile.enabled=true"
    return shell.type(f'flwr run . --stream --run-config "{config}"', app)


@pytest.fixture(scope="module")
def run(log, app) -> Path:
    (folder,) = (app / "results").iterdir()
    return folder


def test_training_says_each_round_in_one_line_and_where_the_results_are(log, run):
    lines = [line for line in log.splitlines() if "MiB |" in line]
    assert len(lines) == 2
    assert "round 1/2 | 5 clients | loss" in lines[0] and lines[1].endswith("done")
    assert log.count(f"results: {run}") == 2
    assert "UNOFFICIAL run (finance, rules 50-supernodes" in log
    assert "static.dataset.name is './samples/finance.jsonl' (locked: 'flwrlabs/" in log


def test_the_checkpoints_manifest_says_how_it_was_made(run, model):
    assert {p.name for p in run.iterdir()} == {
        "peft_1",
        "peft_2",
        "state",
        "tensorboard",
        "loss.png",
        "rounds.jsonl",
        "chain.jsonl",
        "ledger.jsonl",
        "profile.jsonl",
        "run.json",
        ".lock",
    }
    manifest = json.loads((run / "peft_2" / "manifest.json").read_text())
    assert manifest["supernodes"] == manifest["partitions"] == 50
    assert manifest["official"] is False
    # The library is not on record before its release; nothing else differs.
    assert {d["key"] for d in manifest["differences"]} <= {"static.dataset.name", "the library"}
    assert manifest["library"]["editable"] is False and manifest["library"]["edited"] == []
    assert {record["dataset"] for record in manifest["rows"].values()} == {
        "./samples/finance.jsonl"
    }
    assert manifest["base-model"]["path"] == str(model)
    sent, received = (manifest["communication"][k] for k in ("sent-bytes", "received-bytes"))
    assert 0.5 < sent / received < 2  # adapters there and back, and small messages


def test_flwr_profile_shows_where_the_time_went(shell, app, run):
    assert "│ profile " in shell.type("flwr --help", app)
    said = shell.type(f"flwr profile {run.name}", app)
    assert f"{run.name}, finished, " in said
    for phase in ("wait", "transfer", "accumulate", "save", "load", "train", "serve"):
        assert f"\n{phase} " in said
    found = json.loads(shell.type(f"flwr-profile {run.name} --format json --trace t.json", app))
    rows = {(row["where"], row["phase"]): row for row in found["rows"]}
    # 5 clients in each of 2 rounds, and all that they said came through
    assert rows["clients", "train"]["count"] == 10 and found["lost"] == 0
    assert rows["clients", "train"]["tokens-per-second"] > 0
    assert json.loads((app / "t.json").read_text())["traceEvents"]


def test_evaluation_scores_it_and_refuses_to_call_it_official(shell, run):
    refused = shell.type(f"python -m evaluation.finance {run}/peft_2 --sample", run, fails=True)
    assert "static.dataset.name" in refused and "--unofficial" in refused
    table = shell.type(
        f"python -m evaluation.finance {run}/peft_2 --sample --unofficial --quantization 0 "
        "--limit 4",
        run,
    )
    assert "FPB" in table and "average" in table.lower()
