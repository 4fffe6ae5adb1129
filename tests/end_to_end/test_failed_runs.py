"""Runs that fail say why in their last line; more workers change nothing."""

import hashlib
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def supernodes() -> int:
    """Enough for rounds of three clients."""
    return 6


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


def test_wrong_settings_are_said_before_a_run_is_started(shell, app):
    log = shell.type(
        'flwr run . --stream --run-config "model.quantization=3 num-server-rounds=0"',
        app,
        fails=True,
    )
    said = [line for line in log.splitlines() if line.startswith("error: ")]
    assert len(said) == 2 and "Traceback" not in log
    assert "num-server-rounds is 0" in said[0]
    assert "model.quantization is 3; use 4, 8 or 0" in said[1]
    assert json.loads(shell.type("flwr list --format json", app))["runs"] == []


def test_when_every_client_fails_the_run_fails_with_the_first_clients_sentence(
    shell, app, small, tmp_path
):
    rows = tmp_path / "few.jsonl"
    rows.write_text('{"instruction": "a", "input": "b", "output": "c"}\n' * 3)
    config = small.replace("./samples/finance.jsonl", str(rows))
    log = shell.type(f'flwr run . --stream --run-config "{config}"', app)
    assert "the first two clients failed alike: static.dataset.name is" in last_line(log)
    assert "with 3 rows" in last_line(log) and "6 SuperNodes" in last_line(log)
    # Said once, and nothing that Flower says of it above.
    assert log.count("with 3 rows") == 1
    assert "Traceback" not in log and "Exit Code" not in log
    runs = json.loads(shell.type("flwr list --format json", app))["runs"]
    assert runs[0]["status"] == "finished:failed"


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
    # The bytes of a message depend on the length of Flower's number of the run.
    assert messages_of(one) == messages_of(two)


def messages_of(run: Path) -> list[dict]:
    lines = map(json.loads, (run / "ledger.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "bytes"} for line in lines]
