"""The commands of the README, typed for real: 50 SuperNodes, a tiny model, two rounds."""

import contextlib
import hashlib
import json
import time
from pathlib import Path

import psutil
import pytest

from tests.flower import ROOT, make_shell
from tests.tiny import save_tiny_llama

SMALL = (
    "model.quantization=0 model.dtype='float32' static.dataset.name='./samples/finance.jsonl' "
    "num-server-rounds=2 train.training-arguments.max-steps=1 train.save-every-round=1 "
    "train.training-arguments.per-device-train-batch-size=2"
)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    return make_shell(tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="module")
def app(shell, tmp_path_factory):
    """From `pip install` to a running connection."""
    work = tmp_path_factory.mktemp("work")
    shell.type(f"pip install --quiet {ROOT}", work)
    shell.type(
        f"copier copy --quiet --defaults --vcs-ref HEAD --data challenge=finance {ROOT} my-finance",
        work,
    )
    app = work / "my-finance"
    shell.type("pip install --quiet -e .", app)
    said = shell.type("python -m flowertune.connect", app)
    assert "50" in said
    yield app
    assert "Stopped" in shell.type("python -m flowertune.connect --stop", app)


@pytest.fixture(scope="module")
def log(shell, app, model) -> str:
    config = f"model.name='{model}' {SMALL} profile.enabled=true"
    return shell.type(f'flwr run . --stream --run-config "{config}"', app)


@pytest.fixture(scope="module")
def run(log, app) -> Path:
    (folder,) = (app / "results").iterdir()
    return folder


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


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
        "ledger.jsonl",
        "profile.jsonl",
        "run.json",
        ".lock",
    }
    manifest = json.loads((run / "peft_2" / "manifest.json").read_text())
    assert manifest["supernodes"] == manifest["partitions"] == 50
    assert manifest["official"] is False
    assert [d["key"] for d in manifest["differences"]] == ["static.dataset.name"]
    assert manifest["base-model"]["path"] == str(model)
    sent, received = (manifest["communication"][k] for k in ("sent-bytes", "received-bytes"))
    assert sent == received > 0
    assert manifest["protected-changed"] == []


def test_flwr_profile_shows_where_the_time_went(shell, app, run):
    assert "│ profile " in shell.type("flwr --help", app)
    said = shell.type(f"flwr profile {run.name}", app)
    assert f"{run.name}, finished, " in said and "finished:completed" in said
    for phase in ("wait", "transfer", "accumulate", "save", "load", "train", "serve"):
        assert f"\n{phase} " in said
    # The form in which other commands once took the app and the federation.
    assert "Clients" in shell.type(f"flwr profile {run.name} . local-simulation", app)
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


def test_wrong_settings_end_as_a_failed_run_with_one_last_sentence(shell, app):
    log = shell.type(
        'flwr run . --stream --run-config "model.quantization=3 num-server-rounds=0"', app
    )
    assert "model.quantization is 3; use 4, 8 or 0" in last_line(log)
    assert "num-server-rounds is 0" in last_line(log)
    runs = json.loads(shell.type("flwr list --format json", app))["runs"]
    assert runs[0]["status"] == "finished:failed"


def test_when_every_client_fails_the_run_fails_with_the_first_clients_sentence(
    shell, app, model, tmp_path
):
    rows = tmp_path / "few.jsonl"
    rows.write_text('{"instruction": "a", "input": "b", "output": "c"}\n' * 7)
    config = f"model.name='{model}' {SMALL} ".replace("./samples/finance.jsonl", str(rows))
    log = shell.type(f'flwr run . --stream --run-config "{config}"', app)
    assert "all 50 clients failed: static.dataset.name is" in last_line(log)
    assert "7" in last_line(log) and "50" in last_line(log)


def weights_sha(run: Path, rounds: int = 4) -> str:
    weights = run / f"peft_{rounds}" / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def test_one_and_two_workers_give_the_same_bits(shell, app, model, run):
    """Until here a client had 6 cores, or all there are: one worker on the machine of CI."""
    before = set((app / "results").iterdir())
    shell.type("python -m flowertune.connect --num-cpus 1", app)
    shell.type(f"flwr run . --stream --run-config \"model.name='{model}' {SMALL}\"", app)
    (again,) = set((app / "results").iterdir()) - before
    assert weights_sha(again, 2) == weights_sha(run, 2)
    assert (again / "ledger.jsonl").read_text() == (run / "ledger.jsonl").read_text()


def simulation_of(shell) -> psutil.Process | None:
    """The process that runs server and clients, found by this test's port."""
    port = shell.env["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"]
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.endswith("flwr-simulation") for word in words) and any(
            word.endswith(f":{port}") for word in words
        ):
            return process
    return None


def wait_for(condition, seconds: float = 180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def kill_whole(process: psutil.Process) -> None:
    """SIGKILL a process and everything it started."""
    family = [process, *process.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=30)


@pytest.mark.slow
def test_a_run_killed_three_times_goes_on_to_the_same_bits(shell, app, model, run):
    config = f"model.name='{model}' {SMALL} ".replace("num-server-rounds=2", "num-server-rounds=4")
    before = set((app / "results").iterdir())
    shell.type(f'flwr run . --stream --run-config "{config}"', app)
    (whole,) = set((app / "results").iterdir()) - before

    before = set((app / "results").iterdir())
    resume, killed = "", None
    for done in (1, 2, 3):
        shell.type(f'flwr run . --run-config "{config} {resume}"', app)
        if killed is None:
            (killed,) = wait_for(lambda: set((app / "results").iterdir()) - before)
        wait_for((killed / "state" / f"round_{done}").is_dir)
        kill_whole(wait_for(lambda: simulation_of(shell)))
        # Left alone, the SuperLink takes a minute to notice, and starts no other run before.
        shell.type("python -m flowertune.connect --restart --force", app)
        resume = f"resume-from='results/{killed.name}'"
    log = shell.type(f'flwr run . --stream --run-config "{config} {resume}"', app)
    assert "going on after round" in log
    assert weights_sha(killed) == weights_sha(whole)
    assert (killed / "rounds.jsonl").read_text().count("\n") == 4
