"""Runs that fail say why in their last line; more workers change nothing."""

import hashlib
import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def supernodes() -> int:
    """Enough for rounds of three clients."""
    return 6


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_wrong_settings_end_as_a_failed_run_with_one_last_sentence(shell, app):
    log = shell.type(
        'flwr run . --stream --run-config "model.quantization=3 num-server-rounds=0"', app
    )
    assert "model.quantization is 3; use 4, 8 or 0" in last_line(log)
    assert "num-server-rounds is 0" in last_line(log)
    runs = json.loads(shell.type("flwr list --format json", app))["runs"]
    assert runs[0]["status"] == "finished:failed"


def test_when_every_client_fails_the_run_fails_with_the_first_clients_sentence(
    shell, app, small, tmp_path
):
    rows = tmp_path / "few.jsonl"
    rows.write_text('{"instruction": "a", "input": "b", "output": "c"}\n' * 3)
    config = small.replace("./samples/finance.jsonl", str(rows))
    log = shell.type(f'flwr run . --stream --run-config "{config}"', app)
    assert "all 6 clients failed: static.dataset.name is" in last_line(log)
    assert "with 3 rows" in last_line(log) and "6 SuperNodes" in last_line(log)


def new_run(shell, app: Path, config: str) -> Path:
    """Run the app; return the folder of the run."""
    results = app / "results"
    before = set(results.iterdir()) if results.exists() else set()
    shell.type(f'flwr run . --stream --run-config "{config}"', app)
    (folder,) = set(results.iterdir()) - before
    return folder


def test_one_and_two_workers_give_the_same_bits(shell, app, small, supernodes):
    """Until here a client had 6 cores, or all there are: one worker on the machine of CI."""
    one = new_run(shell, app, small)
    shell.type(f"flowertune connect --num-supernodes {supernodes} --num-cpus 1", app)
    two = new_run(shell, app, small)
    weights = [run / "peft_2" / "adapter_model.safetensors" for run in (one, two)]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in weights}) == 1
    assert (one / "ledger.jsonl").read_text() == (two / "ledger.jsonl").read_text()
