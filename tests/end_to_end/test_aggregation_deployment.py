"""Whole models over real processes: TLS, keys, a killed server, a SuperNode that comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from flowertune.aggregation.plan import Tensor
from flowertune.aggregation.row_check import exact_row
from tests.apps import default_settings, rendered
from tests.tiny import save_tiny_llama

SEED = default_settings("flowertune-llm")["seed"]


def process_of(home: Path, *words: str) -> psutil.Process | None:
    """The process of the federation of this FLWR_HOME whose command line holds ``words``."""
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        try:
            if all(w in command for w in words) and process.environ().get("FLWR_HOME") == str(home):
                return process
        except (psutil.Error, OSError):
            continue
    return None


@pytest.mark.slow
@pytest.mark.full
def test_a_server_and_a_supernode_are_killed_amid_a_round_and_the_mean_is_that_of_both(tmp_path):
    home, results = tmp_path / "flwr-home", tmp_path / "results"
    model = save_tiny_llama(tmp_path / "model")
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    env.pop("PYTHONPATH", None)
    config = (
        f"model.name='{model}' model.quantization=0 train.training-arguments.max-steps=0 "
        "model.weights='synthetic' model.dtype='float16' aggregation.exact=true "
        f"num-server-rounds=1 strategy.fraction-train=1.0 results-dir='{results}' "
        "aggregation.bucket-mb=0.02"
    )
    run = 'flwr run . local-deployment --stream --run-config "{}"'
    script = f"{run.format(config)}; " + run.format(
        f"{config} resume-from='$(echo {results}/[0-9]*)'"
    )
    with (tmp_path / "said.txt").open("w") as said:
        command = subprocess.Popen(
            ["flowertune", "federation", "--auth", "--", "bash", "-c", script],
            cwd=rendered("flowertune-llm"), env=env, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
    part = "*/.model_1.part/journal.jsonl"

    def wait_for_buckets(count: int) -> None:
        deadline = time.monotonic() + 300
        while not any(1 + count <= file.read_text().count("\n") for file in results.glob(part)):
            assert command.poll() is None and time.monotonic() < deadline, log(tmp_path)
            time.sleep(0.05)

    try:
        wait_for_buckets(1)
        server = process_of(home, "flwr-serverapp")
        assert server is not None
        server.send_signal(signal.SIGKILL)
        (journal,) = results.glob(part)
        before = journal.read_text().splitlines()
        wait_for_buckets(len(before))
        victim = process_of(home, "flower-supernode", "partition-id=1 num-partitions=2")
        assert victim is not None
        victim.send_signal(signal.SIGKILL)
        assert command.wait(300) == 0, log(tmp_path)
    finally:
        if command.poll() is None:
            command.terminate()
            command.wait(60)
    (run_folder,) = results.iterdir()
    line = json.loads((run_folder / "rounds.jsonl").read_text())
    assert line["partitions"] == [0, 1] and line["failed"] == 0
    assert f"round 1 is resumed after bucket {len(before) - 1}" in log(tmp_path)
    assert "supernode-1 runs again" in log(tmp_path)
    # Two models that differ, of weights 1 and 2: every value of every row is their exact mean.
    mean = load_file(run_folder / "model_1" / "model.safetensors")
    assert mean.keys() == load_file(model / "model.safetensors").keys()
    for name, found in mean.items():
        tensor = Tensor(name, tuple(found.shape), "F16")
        rows = found.reshape(tensor.rows, tensor.width).double().numpy()
        for number, row in enumerate(rows):
            assert (row == exact_row(tensor, number, SEED, {0: 1, 1: 2})).all()


def log(folder: Path) -> str:
    """What the federation and the run said."""
    return (folder / "said.txt").read_text()
