"""How the end of a round grows with the rounds that are done, and with the clients of a round.

    python -m benchmarks.growth [--rounds 2000] [--clients 10 100 1000] [--plot FILE.svg]

The server's real code over a grid of this process; clients answer with the adapter that came, so
nothing is trained. The model is a tiny one with random weights: what is measured is the library's
bookkeeping, in CPU seconds of the process, which a busy machine changes little.
"""

import argparse
import json
import logging
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

CLIENTS, EVERY, AROUND = 10, 50, 25
ROWS = 1500  # of a client, as in the challenges
ROUNDS_OF_MANY = 24  # with many clients: enough for a median


@contextmanager
def measured(seconds: dict[bool, dict[int, float]]) -> Iterator[None]:
    """Let clients answer without training, and note what each end of a round takes.

    Parameters
    ----------
    seconds
        Of each round, apart for those with and without a checkpoint.
    """
    from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

    from flowertune.comms.queries import LENGTHS
    from flowertune.run.training import TrainingRun
    from tests.local_grid import LocalGrid

    end, handle = TrainingRun.end_round, LocalGrid.handle
    rows = {"dataset": "", "revision": "main", "rows": ROWS, "sha256": "0" * 64}

    def timed(run: Any, result: Any, adapter: Any, metrics: Any) -> None:
        start = time.process_time()
        end(run, result, adapter, metrics)
        done, cfg = result.server_round, run.cfg
        saved = done % cfg.train.save_every_round == 0 or done == cfg.num_server_rounds
        seconds[saved][done] = time.process_time() - start

    def answer(grid: Any, message: Any, partition: int) -> Message:
        if message.metadata.message_type == LENGTHS:
            lengths = ConfigRecord({"prompt": [20] * ROWS, "total": [40] * ROWS})
            return Message(RecordDict({"lengths": lengths}), reply_to=message)
        if message.metadata.message_type != "train":
            return handle(grid, message, partition)
        about = {**rows, "dataset": grid.cfg["static.dataset.name"]}
        content = RecordDict(
            {
                "arrays": message.content.array_records["arrays"],
                "metrics": MetricRecord({"num-examples": 1, "train-loss": 1.0, "tokens": 1}),
                "client": ConfigRecord({"partition-id": partition, "rows": json.dumps(about)}),
            }
        )
        return Message(content, reply_to=message)

    with (
        mock.patch.object(TrainingRun, "end_round", timed),
        mock.patch.object(LocalGrid, "handle", answer),
    ):
        yield


def run(clients: int, rounds: int, every: int) -> dict[bool, dict[int, float]]:
    """Return the CPU seconds of each end of a round, without (False) and with a checkpoint."""
    from tests.apps import default_settings
    from tests.local_grid import run_app
    from tests.tiny import save_tiny_llama

    seconds: dict[bool, dict[int, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as name:
        cfg = {
            **default_settings("finance"),
            "model.name": str(save_tiny_llama(Path(name) / "model")),
            "model.quantization": 0,
            "results-dir": name,
            "num-server-rounds": rounds,
            "train.save-every-round": every,
            "strategy.fraction-train": 1.0,
            "train.training-arguments.max-steps": 2,
            "train.training-arguments.per-device-train-batch-size": 2,
        }
        with measured(seconds):
            run_app(cfg, clients)
    return seconds


def around(seconds: dict[int, float], done: int) -> float:
    """Return the median of the rounds next to one, in milliseconds."""
    near = min(AROUND, max(1, len(seconds) // 8))
    nearest = sorted(seconds, key=lambda n: abs(n - done))[:near]
    return 1000 * statistics.median(seconds[n] for n in nearest)


def of_rounds(rounds: int, every: int) -> dict[bool, dict[int, float]]:
    """Print and return how the end of a round grows with the rounds that are done."""
    found = run(CLIENTS, rounds, every)
    at = [n for n in (10, 100, 500, 1000, 2000) if n <= rounds]
    print(f"{CLIENTS} clients, a checkpoint every {every} rounds; CPU milliseconds (median)")
    print("  rounds done        " + "".join(f"{n:>10,}" for n in at))
    for saved, what in ((False, "without checkpoint"), (True, "with checkpoint")):
        values = [around(found[saved], done) for done in at]
        ratio = f"   last / first {values[-1] / values[0]:.2f}"
        print(f"  {what:<19}" + "".join(f"{value:>10.1f}" for value in values) + ratio)
    return found


def of_clients(counts: list[int]) -> dict[int, float]:
    """Print and return how the end of a round grows with its clients, in milliseconds."""
    found = {}
    for clients in counts:
        seconds = run(clients, ROUNDS_OF_MANY, 4)[True]
        found[clients] = 1000 * statistics.median(seconds.values())
    print("with checkpoint, CPU milliseconds (median)")
    print("  clients            " + "".join(f"{n:>10,}" for n in found))
    print("  milliseconds       " + "".join(f"{value:>10.1f}" for value in found.values()))
    print("  a client           " + "".join(f"{ms / n:>10.3f}" for n, ms in found.items()))
    return found


def plot(rounds: dict[bool, dict[int, float]], clients: dict[int, float], file: Path) -> None:
    """Draw both curves."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for saved, name in ((True, "with a checkpoint"), (False, "without")):
        done = sorted(rounds[saved])
        left.plot(done, [1000 * rounds[saved][n] for n in done], ".", markersize=2, label=name)
    left.set(xlabel="rounds done", ylabel="end of a round, CPU ms", ylim=(0, None))
    left.legend()
    right.plot(list(clients), list(clients.values()), "o-")
    right.set(xlabel="clients of a round", ylabel="with a checkpoint, CPU ms", ylim=(0, None))
    figure.savefig(file)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=2000, help="rounds of the run (default 2000)")
    parser.add_argument("--every", type=int, default=EVERY, help="rounds between checkpoints")
    parser.add_argument("--clients", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves, too")
    arguments = parser.parse_args()
    from flwr.supercore.task_identity import TaskIdentity

    # The lines of thousands of rounds are no part of the result.
    logging.getLogger("flwr").setLevel(logging.ERROR)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    rounds = of_rounds(arguments.rounds, arguments.every)
    clients = of_clients(arguments.clients) if arguments.clients else {}
    if arguments.plot:
        plot(rounds, clients, arguments.plot)


if __name__ == "__main__":
    main()
