"""A run that is killed goes on from its last finished round, to the same bits."""

import contextlib
import hashlib
import json
import time
from pathlib import Path

import psutil
import pytest


@pytest.fixture(scope="module")
def supernodes() -> int:
    """Enough for rounds of three clients."""
    return 6


def weights_sha(run: Path, rounds: int) -> str:
    weights = run / f"peft_{rounds}" / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


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
@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.full)])
def test_a_killed_run_goes_on_to_the_same_bits(shell, app, small, supernodes, kills):
    config = small.replace("num-server-rounds=2", f"num-server-rounds={kills + 1}")
    shell.type(f'flwr run . --stream --run-config "{config}"', app)
    before = set((app / "results").iterdir())
    whole = max(before, key=lambda folder: folder.stat().st_mtime)

    resume, killed = "", Path()
    for done in range(1, kills + 1):
        shell.type(f'flwr run . --run-config "{config} {resume}"', app)
        if not resume:
            (killed,) = wait_for(lambda: set((app / "results").iterdir()) - before)
        wait_for((killed / "state" / f"round_{done}").is_dir)
        kill_whole(wait_for(lambda: simulation_of(shell)))
        # Left alone, the SuperLink takes a minute to notice, and starts no other run before.
        shell.type(f"flowertune connect --num-supernodes {supernodes} --restart --force", app)
        resume = f"resume-from='results/{killed.name}'"
    log = shell.type(f'flwr run . --stream --run-config "{config} {resume}"', app)
    assert "resuming after round" in log
    assert weights_sha(killed, kills + 1) == weights_sha(whole, kills + 1)
    assert (killed / "rounds.jsonl").read_text().count("\n") == kills + 1


@pytest.mark.slow
@pytest.mark.full
def test_a_killed_worker_is_replaced_and_costs_one_reply(shell, app, small):
    config = small.replace("num-server-rounds=2", "num-server-rounds=8")
    results = app / "results"
    before = set(results.glob("*"))
    shell.type(f'flwr run . --run-config "{config}"', app)
    (run,) = wait_for(lambda: set(results.glob("*")) - before)
    wait_for((run / "peft_1").is_dir)
    family = wait_for(lambda: simulation_of(shell)).children(recursive=True)
    workers = [p for p in family if "ClientAppActor" in " ".join(p.cmdline())]
    workers[0].kill()
    wait_for(lambda: json.loads((run / "run.json").read_text())["status"] != "running")
    about = json.loads((run / "run.json").read_text())
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert about["status"] == "finished" and len(rounds) == 8
    assert sum(line["failed"] for line in rounds) == 1
    (lost,) = [line["lost"] for line in rounds if line["failed"]]
    assert "its worker process was killed" in str(lost)
