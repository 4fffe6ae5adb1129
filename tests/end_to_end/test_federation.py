"""A federation of real processes: TLS, SuperNode keys, training, coming back, ending."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flowertune.deploy.processes import MARK
from tests.apps import rendered
from tests.tiny import save_tiny_llama

SMALL = (
    "model.quantization=0 model.dtype='float32' model.gradient-checkpointing=false "
    "train.seq-length=64 train.training-arguments.per-device-train-batch-size=2 "
    "train.training-arguments.max-steps=1 strategy.fraction-train=1.0 num-server-rounds=2 "
    "aggregation.mode='all_at_once' prompt.template='{question}' static.dataset.question='{input}'"
)


def wait_for(condition, seconds: float = 180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return found


def relatives(folder: Path) -> list[psutil.Process]:
    """Every process that a federation started: they inherit a mark, and this test's home."""
    found = []
    for process in psutil.process_iter():
        try:
            env = process.environ()
        except (psutil.Error, OSError):
            continue
        if MARK in env and env.get("FLWR_HOME") == str(folder):
            found.append(process)
    return found


@pytest.mark.slow
def test_training_over_tls_with_keys_and_nothing_left_at_the_end(tmp_path):
    app, home = rendered("flowertune-llm"), tmp_path / "flwr-home"
    model = save_tiny_llama(tmp_path / "model")
    rows = [{"instruction": "Add one.", "input": str(n), "output": str(n + 1)} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = (
        f"{SMALL} model.name='{model}' results-dir='{tmp_path / 'results'}' "
        f"static.dataset.name='{tmp_path / 'rows.jsonl'}'"
    )
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    env.pop("PYTHONPATH", None)
    said = tmp_path / "said.txt"
    with said.open("w") as output:
        federation = subprocess.Popen(
            [sys.executable, "-m", "flowertune", "federation", "--auth", "--name", "fed"],
            cwd=app, env=env, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def flwr(*words: str) -> str:
        done = subprocess.run(
            ["flwr", *words], cwd=app, env=env, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + said.read_text()
        return done.stdout

    def online() -> set[str]:
        nodes = json.loads(flwr("supernode", "list", "fed", "--format", "json"))["nodes"]
        return {node["node-id"] for node in nodes if node["status"] == "online"}

    try:
        wait_for(lambda: "Ready" in said.read_text() or federation.poll() is not None)
        log = flwr("run", ".", "fed", "--stream", "--run-config", config)
        assert "round 2/2 | 2 clients" in log, log
        (run,) = (tmp_path / "results").iterdir()
        assert (run / "peft_2" / "adapter_model.safetensors").is_file()
        ledger = [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
        # Layer-wise, a client gets the adapter and is asked for each bucket of what it trained.
        assert {(e["partition"], e["direction"]) for e in ledger if e["round"] == 2} == {
            (0, "received"), (0, "sent"), (1, "received"), (1, "sent"),
        }  # fmt: skip

        # The process of each SuperNode's client stays, with its model.
        kept = [p for p in relatives(home) if "flowertune.deploy.client_process" in p.cmdline()]
        assert len(kept) == 2

        before = online()
        node = next(p for p in relatives(home) if "partition-id=1 num-partitions=2" in p.cmdline())
        node.terminate()
        wait_for(lambda: "supernode-1 runs again" in said.read_text())
        # with its key it is the same SuperNode as before
        log_of_1 = home / "flowertune" / "federations" / "fed" / "supernode-1.log"
        wait_for(lambda: log_of_1.read_text().count("SuperNode ID: ") == 2, 60)
        assert online() == before and len(before) == 2
        assert len(relatives(home)) >= 6  # three components, and the SuperExec of each
    finally:
        federation.send_signal(signal.SIGTERM)
        status = federation.wait(60)
    assert status == 128 + signal.SIGTERM, said.read_text()
    assert relatives(home) == []
