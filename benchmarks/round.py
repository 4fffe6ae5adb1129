"""How much of a worker's time is training, and what the library's caches are worth.

    python -m benchmarks.round [--rounds 4] [--quantization 0 4] [--threads N]

One worker, the built-in model SmolLM2-135M-Instruct, as many rows as the finance challenge has (the
sample's, over and over); by default 5 clients of 2 steps of 4 rows in each of 4 rounds. The same
rounds run with the library's caches on and off (off: tokenizer, rows, model and adapter are made
anew for every message, as the official app does), in turn, in one process, over a grid of this
process: no Ray, no network. `benchmarks.start` measures how a worker starts.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).parent.parent
CLIENTS, STEPS, BATCH = 5, 2, 4
NODES = 50
DATA_ROWS = 76_772  # FinGPT/fingpt-sentiment-train, the finance challenge's data


def write_data(folder: Path) -> Path:
    """Write a file with the finance sample's rows, repeated up to the real number of rows."""
    sample = (ROOT / "challenges" / "samples" / "finance.jsonl").read_text("utf-8").splitlines()
    path = folder / "data.jsonl"
    path.write_text("".join(sample[n % len(sample)] + "\n" for n in range(DATA_ROWS)), "utf-8")
    return path


def settings(quantization: int, rounds: int, folder: Path) -> dict[str, Any]:
    """The run-config of the benchmark: the quickstart's, with its own sizes."""
    import tomllib

    from flwr.common.config import flatten_dict

    from tests.apps import default_settings, rendered

    quick = tomllib.loads((rendered("finance") / "quickstart.toml").read_text("utf-8"))
    return {
        **default_settings("finance"),
        **flatten_dict(quick),
        "model.quantization": quantization,
        "static.dataset.name": str(folder / "data.jsonl"),
        "results-dir": str(folder),
        "num-server-rounds": rounds,
        "train.save-every-round": rounds,
        "strategy.fraction-train": CLIENTS / NODES,
        "train.training-arguments.max-steps": STEPS,
        "train.training-arguments.per-device-train-batch-size": BATCH,
    }


class Clock:
    """Seconds in the app's steps and in the client's handler, message by message."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.handler: list[float] = []
        self.tokens = self.padded = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure every message that the client app handles in this context."""
        from flowertune.client.task import ClientTask
        from tests.local_grid import LocalGrid

        steps_of, phase_of, handle = ClientTask.steps, ClientTask.phase, LocalGrid.handle

        def counted_steps(task: Any, *arguments: Any) -> Any:
            steps = steps_of(task, *arguments)
            for batch in (batch for step in steps for batch in step.micro_batches):
                lengths = [len(example.ids) for example in batch]
                self.tokens += sum(lengths)
                self.padded += max(lengths) * len(lengths)
            return steps

        @contextlib.contextmanager
        def timed_phase(task: Any, name: str) -> Iterator[Any]:
            start = time.perf_counter()
            with phase_of(task, name) as span:
                yield span
            if name == "train":
                self.steps.append(time.perf_counter() - start)

        def timed_handle(grid: Any, message: Any, partition: int) -> Any:
            start = time.perf_counter()
            try:
                return handle(grid, message, partition)
            finally:
                if message.metadata.message_type == "train":
                    self.handler.append(time.perf_counter() - start)

        with (
            mock.patch.object(ClientTask, "steps", counted_steps),
            mock.patch.object(ClientTask, "phase", timed_phase),
            mock.patch.object(LocalGrid, "handle", timed_handle),
        ):
            yield


@contextlib.contextmanager
def caches(on: bool) -> Iterator[None]:
    """With the caches off, everything is made anew for every message."""
    from flowertune.client import rows as client_rows
    from flowertune.client import task
    from flowertune.data import rows
    from flowertune.models import resolve as models

    if on:
        yield
        return

    def make_anew(make: Any, cfg: Any, depends_on: Any, *arguments: Any, keep: int = 1) -> Any:
        models._resolve.cache_clear()
        rows.load_partition.cache_clear()
        return make(cfg, *arguments)

    with contextlib.ExitStack() as patches:
        for module in (task, client_rows):
            patches.enter_context(mock.patch.object(module, "cached", make_anew))
        yield


def rounds_of(run: Path) -> list[float]:
    """Seconds of each round, as the run recorded them."""
    lines = (run / "rounds.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["seconds"] for line in lines]


def measure(quantization: int, rounds: int) -> None:
    """Print the comparison for one quantization."""
    from flowertune.base import cache
    from tests.local_grid import run_app

    results: dict[bool, tuple[Clock, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        for run_id, on in enumerate((True, False)):
            clock = Clock()
            cache.clear_cache()
            cfg = settings(quantization, rounds, folder)
            with caches(on), clock.running():
                run_app(cfg, NODES, run_id)
            results[on] = clock, rounds_of(folder / str(run_id))

    (warm, warm_rounds), (cold, cold_rounds) = results[True], results[False]
    later = slice(CLIENTS, None)
    share = sum(warm.steps[later]) / sum(warm_rounds[1:])
    kind = f"{quantization}-bit" if quantization else "unquantized"
    print(f"{kind}: {CLIENTS} clients x {STEPS} steps x {BATCH} rows, {rounds} rounds")
    print(f"  from round 2 on, share of wall time in the steps, caches on   {share:7.1%}")
    off = sum(cold.steps[later]) / sum(cold_rounds[1:])
    print(f"  the same, caches off                                          {off:7.1%}")
    ratio = sum(cold_rounds[1:]) / sum(warm_rounds[1:])
    print(f"  rounds, caches off / on                                       {ratio:7.2f}")
    outside = [h - f for h, f in zip(cold.handler[later], cold.steps[later], strict=True)]
    print(f"  set-up of one message, caches off, in steps of training       "
          f"{STEPS * sum(outside) / sum(cold.steps[later]):7.2f}")  # fmt: skip
    print(f"  tokens/s inside the steps                                     "
          f"{warm.tokens / sum(warm.steps):7.0f}")  # fmt: skip
    print(f"  padding                                                       "
          f"{1 - warm.tokens / warm.padded:7.1%}")  # fmt: skip


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
    import torch
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    torch.set_num_threads(arguments.threads)
    for quantization in arguments.quantization:
        measure(quantization, arguments.rounds)


if __name__ == "__main__":
    main()
