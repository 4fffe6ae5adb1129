"""How much of a worker's time is training, and what the engine's caches are worth.

    python -m benchmarks.round [--rounds 4] [--quantization 0 4] [--threads N]

One worker, the built-in model SmolLM2-135M-Instruct, the finance sample; by default 5 clients of 2
steps of 4 rows in each of 4 rounds. The same rounds run with the engine's caches on and off (off:
tokenizer, rows, model and adapter are made anew for every message, as the official app does), in
turn, in one process, over a grid of this process: no Ray, no network. A second process measures
the start: from a worker's first message to its first training step, against importing torch,
transformers and peft and loading the model.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parent.parent
CLIENTS, STEPS, BATCH = 5, 2, 4
NODES = 50


def settings(quantization: int, rounds: int, results: str) -> dict[str, Any]:
    """The run-config of the benchmark: the quickstart's, with its own sizes."""
    import tomllib

    from flwr.common.config import flatten_dict

    from tests.apps import default_settings, rendered

    quick = tomllib.loads((rendered("finance") / "quickstart.toml").read_text("utf-8"))
    return {
        **default_settings("finance"),
        **flatten_dict(quick),
        "model.quantization": quantization,
        "static.dataset.name": str(ROOT / "challenges" / "samples" / "finance.jsonl"),
        "results-dir": results,
        "num-server-rounds": rounds,
        "train.save-every-round": rounds,
        "strategy.fraction-train": CLIENTS / NODES,
        "train.training-arguments.max-steps": STEPS,
        "train.training-arguments.per-device-train-batch-size": BATCH,
    }


class Clock:
    """Seconds inside ``fit`` and inside the client's handler, message by message."""

    def __init__(self) -> None:
        self.fit: list[float] = []
        self.handler: list[float] = []
        self.tokens = self.padded = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure every message that the client app handles in this context."""
        from flowertune import client_app

        from tests.local_grid import LocalGrid

        fit, handle = client_app.fit, LocalGrid.handle

        def timed_fit(model: Any, steps: Any, *rest: Any) -> float:
            for batch in (batch for step in steps for batch in step):
                lengths = [len(example.ids) for example in batch]
                self.tokens += sum(lengths)
                self.padded += max(lengths) * len(lengths)
            start = time.perf_counter()
            try:
                return fit(model, steps, *rest)
            finally:
                self.fit.append(time.perf_counter() - start)

        def timed_handle(grid: Any, message: Any, partition: int) -> Any:
            start = time.perf_counter()
            try:
                return handle(grid, message, partition)
            finally:
                if message.metadata.message_type == "train":
                    self.handler.append(time.perf_counter() - start)

        with (
            mock.patch.object(client_app, "fit", timed_fit),
            mock.patch.object(LocalGrid, "handle", timed_handle),
        ):
            yield


@contextlib.contextmanager
def caches(on: bool) -> Iterator[None]:
    """With the caches off, everything is made anew for every message."""
    from flowertune import client_app
    from flowertune.sources import models, rows

    if on:
        yield
        return

    def make_anew(make: Any, cfg: Any, depends_on: Any, *arguments: Any, keep: int = 1) -> Any:
        models._resolve.cache_clear()
        rows.load_partition.cache_clear()
        return make(cfg, *arguments)

    with mock.patch.object(client_app, "reuse", make_anew):
        yield


def rounds_of(run: Path) -> list[float]:
    """Seconds of each round, as the run recorded them."""
    lines = (run / "rounds.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["seconds"] for line in lines]


def measure(quantization: int, rounds: int) -> None:
    """Print the comparison for one quantization."""
    from flowertune.training import cache

    from tests.local_grid import in_this_process, run_app

    results: dict[bool, tuple[Clock, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for run_id, on in enumerate((True, False)):
            clock = Clock()
            cache.forget()
            cfg = settings(quantization, rounds, folder)
            with in_this_process("finance"), caches(on), clock.running():
                run_app(cfg, NODES, run_id)
            results[on] = clock, rounds_of(Path(folder, str(run_id)))

    (warm, warm_rounds), (cold, cold_rounds) = results[True], results[False]
    later = slice(CLIENTS, None)
    share = sum(warm.fit[later]) / sum(warm_rounds[1:])
    name = f"{quantization}-bit" if quantization else "unquantised"
    print(f"{name}: {CLIENTS} clients x {STEPS} steps x {BATCH} rows, {rounds} rounds")
    print(f"  from round 2 on, share of wall time in the steps, caches on   {share:7.1%}")
    off = sum(cold.fit[later]) / sum(cold_rounds[1:])
    print(f"  the same, caches off                                          {off:7.1%}")
    ratio = sum(cold_rounds[1:]) / sum(warm_rounds[1:])
    print(f"  rounds, caches off / on                                       {ratio:7.2f}")
    print(f"  tokens/s inside the steps                                     "
          f"{warm.tokens / sum(warm.fit):7.0f}")  # fmt: skip
    print(f"  padding                                                       "
          f"{1 - warm.tokens / warm.padded:7.1%}")  # fmt: skip


START = """
import sys, time
begin = time.perf_counter()
sys.path[:0] = [{root!r}, {root!r} + "/template"]
if sys.argv[1] == "bare":
    import peft, torch, transformers
    torch.set_num_threads({threads})
    transformers.AutoModelForCausalLM.from_pretrained({model!r}, dtype=torch.float32)
    print(time.perf_counter() - begin)
else:
    from flowertune import client_app
    import torch
    torch.set_num_threads({threads})
    def first_step(*arguments):
        print(time.perf_counter() - begin)
        raise SystemExit
    client_app.fit = first_step
    from flowertune.transport.codec import pack
    from flowertune.models import initial_adapter
    from benchmarks.round import settings
    from tests.local_grid import LocalGrid
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    cfg = settings(0, 1, "/tmp")
    adapter, _ = initial_adapter(cfg)
    config = ConfigRecord({{"server-round": 1, "learning-rate": 1e-3, "state-key": "x"}})
    content = RecordDict({{"arrays": pack(adapter, "float32"), "config": config}})
    message = Message(content, 1000, "train")
    message.metadata.__dict__["_message_id"] = "m"
    begin = time.perf_counter() - imported
    LocalGrid(cfg, 50).handle(message, 0)
"""


def measure_start(threads: int) -> None:
    """Print the time to the first step against the least it could be, each in its own process."""
    from flowertune.sources import smollm2

    code = START.format(root=str(ROOT), threads=threads, model=str(smollm2.fetch()))
    code = code.replace(
        "    def first_step", "    imported = time.perf_counter() - begin\n    def first_step"
    )

    def seconds(kind: str) -> float:
        done = subprocess.run(
            [sys.executable, "-c", code, kind], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stderr)
        return float(done.stdout.splitlines()[-1])

    pairs = [(seconds("bare"), seconds("worker")) for _ in range(3)]
    ratios = sorted(worker / bare for bare, worker in pairs)
    print("start: a worker's first message to its first step")
    print(f"  against imports and loading the model, median of 3 pairs      {ratios[1]:7.2f}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.round",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each run (default 4)")
    parser.add_argument("--quantization", type=int, nargs="+", default=[0, 4], help="0, 4 or 8")
    parser.add_argument("--threads", type=int, default=2, help="threads of the worker (default 2)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "template"))
    import torch

    torch.set_num_threads(arguments.threads)
    for quantization in arguments.quantization:
        measure(quantization, arguments.rounds)
    measure_start(arguments.threads)


if __name__ == "__main__":
    main()
