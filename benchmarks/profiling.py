"""What a profile costs: the same run with and without `profile.enabled`, alternately.

    python -m benchmarks.profiling [--pairs 8] [--rounds 5] [--steps 8]

A tiny random model, 4 SuperNodes of which 2 train in a round; server and clients run in one
process, one after the other, without Ray or a network. A profile costs the same per phase however
long the phase is, and these rounds are far shorter than those of a real run, so the result is an
upper bound. Prints the ratio of the time with a profile to the time without: median and quartiles
of all pairs.
"""

import argparse
import contextlib
import io
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

NODES = 4


def settings(folder: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Return the run-config of the benchmark; write its model and its rows to ``folder``."""
    # Late: --help is there without torch.
    from tests.apps import tiny_settings
    from tests.tiny import save_tiny_llama

    return tiny_settings(
        folder,
        save_tiny_llama(folder / "model"),
        400,
        {
            "strategy.fraction-train": 0.5,
            "num-server-rounds": rounds,
            "train.save-every-round": rounds,
            "train.training-arguments.max-steps": steps,
        },
    )


def timed(cfg: dict[str, Any], run_id: int) -> tuple[float, float]:
    """Run once; return seconds of wall time and of processor time."""
    from tests.local_grid import run_app

    wall, processor = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        run_app(cfg, NODES, run_id)
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    # Late: --help is there without them.
    import torch
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    ratios: dict[str, list[float]] = {"wall": [], "processor": []}
    with tempfile.TemporaryDirectory() as folder:
        cfg = settings(Path(folder), given.rounds, given.steps)
        timed(cfg, 1)
        for pair in range(given.pairs):
            seconds = {}
            # The order alternates, so that a drift of the machine cancels.
            for on in (True, False) if pair % 2 else (False, True):
                seconds[on] = timed({**cfg, "profile.enabled": on}, 10 + 2 * pair + on)
            for i, kind in enumerate(ratios):
                ratios[kind].append(seconds[True][i] / seconds[False][i])
            print(
                f"pair {pair + 1}: {seconds[False][0]:.2f} s without, {seconds[True][0]:.2f} s with"
            )
    for kind, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{kind} time with / without: median {middle:.4f}, quartiles {low:.4f} to {high:.4f}")


if __name__ == "__main__":
    main()
