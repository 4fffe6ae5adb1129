"""How long a run takes to its first step, and a new worker from its first message to it.

    python -m benchmarks.start [--pairs 3] [--quantization 0]
    python -m benchmarks.start --against COMMIT [--pairs 5]

With --against: from `flwr run` to the first step, in turn with another commit (see
benchmarks/first_step.py). Without: a worker, measured against the least it could be, a process that
imports torch, transformers and peft and loads the same model. Each time is a process of its own,
with flwr imported before the clock starts, as it is in a worker of the Simulation Engine. Built-in
model SmolLM2-135M-Instruct, the quickstart of finance, one of 50 partitions.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

BARE = """
import flwr, sys, time
start = time.perf_counter()
import torch, transformers, peft
transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], {options})
print(time.perf_counter() - start)
"""
BITS = """dtype=torch.float32, quantization_config=transformers.BitsAndBytesConfig(
    load_in_4bit={bits} == 4, load_in_8bit={bits} == 8, bnb_4bit_compute_dtype=torch.float32)"""
WORKER = """
import pickle, sys, time
from pathlib import Path
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
cfg, message = pickle.loads(Path(sys.argv[1]).read_bytes())
node = {"partition-id": 0, "num-partitions": 50}
context = Context(run_id=1, node_id=1, node_config=node, state=RecordDict(), run_config=cfg)
start = time.perf_counter()
from flowertune_finance import client_app
def first_step(*arguments):
    print(time.perf_counter() - start)
    raise SystemExit
client_app.answer_loss = first_step
client_app.app(message, context)
"""


def seconds(code: str, argument: Path, app: Path) -> float:
    """Run code in a process of its own, in the app's folder; return the seconds that it prints."""
    environment = {**os.environ, "PYTHONPATH": str(app), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(argument)],
        env=environment, cwd=app, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def write_message(cfg: dict[str, Any], path: Path) -> None:
    """Write settings and a first training message, as a worker gets them."""
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from flowertune.comms.codec import pack
    from flowertune.models.adapter import adapter_shapes, initial_adapter
    from template.app.models import lora_config
    from tests.apps import settings

    for name in ("_run_id", "_node_id", "_task_id"):
        setattr(TaskIdentity, name, 1)
    typed = settings(cfg)
    peft_config = lora_config(typed)
    adapter, _ = initial_adapter(typed, peft_config, adapter_shapes(typed, peft_config))
    arrays = pack(adapter, typed.train.transport)
    config = ConfigRecord({"server-round": 1, "learning-rate": 1e-3, "state-key": "start"})
    message = Message(RecordDict({"arrays": arrays, "config": config}), 1, "train")
    message.metadata.__dict__["_message_id"] = "first"
    path.write_bytes(pickle.dumps((cfg, message)))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs of processes (default 3)")
    parser.add_argument("--quantization", type=int, default=0, help="0, 4 or 8 (default 0)")
    parser.add_argument("--against", metavar="COMMIT", help="measure whole runs against a commit")
    arguments = parser.parse_args()
    if arguments.against:
        from benchmarks import first_step

        with tempfile.TemporaryDirectory() as folder:
            first_step.compare(arguments.against, arguments.pairs, Path(folder))
        return
    from benchmarks.round import settings
    from flowertune.models import smollm2
    from tests.apps import rendered

    bits = arguments.quantization
    options = BITS.format(bits=bits) if bits else "dtype=torch.float32"
    app, model = rendered("finance"), smollm2.fetch()
    with tempfile.TemporaryDirectory() as folder:
        sample = ROOT / "challenges" / "samples" / "finance.jsonl"
        cfg = {**settings(bits, 1, Path(folder)), "static.dataset.name": str(sample)}
        message = Path(folder, "message")
        write_message(cfg, message)
        pairs = [
            (seconds(BARE.format(options=options), model, app), seconds(WORKER, message, app))
            for _ in range(arguments.pairs)
        ]
    bare, worker = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(ours / least for least, ours in pairs)
    print(f"imports and the model alone           {bare:6.2f} s")
    print(f"first message to first training step  {worker:6.2f} s")
    print(f"ratio, median of {arguments.pairs} pairs              {ratio:6.2f}")


if __name__ == "__main__":
    main()
