"""Seconds of a round in Flower's Deployment Engine: this checkout against another commit.

    python -m benchmarks.deployment COMMIT [--pairs 5] [--rounds 5]

`flowertune federation` with two SuperNodes, the quickstart of finance with one step of one row of
each client in a round, in turn with both. A round's seconds are those between two lines of
rounds.jsonl, so that the first round, in which all is loaded in any case, does not count.
"""

import argparse
import json
import shutil
import statistics
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from benchmarks.sides import ROOT, Side, checkout, make_side


def seconds(side: Side) -> list[float]:
    """Run a federation; return the seconds of each round after the first."""
    shutil.rmtree(side.app / "results", ignore_errors=True)
    side.type(
        "flowertune", "federation", "--timeout", "600", "--",
        "flwr", "run", ".", "local-deployment", "--stream", "--run-config", "quickstart.toml",
    )  # fmt: skip
    (file,) = (side.app / "results").glob("*/rounds.jsonl")
    lines = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    ends = [datetime.fromisoformat(line["time"]).timestamp() for line in lines]
    return [after - before for before, after in pairwise(ends)]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deployment",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("commit", help="what this checkout is compared with")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each (default 5)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of a run (default 5)")
    arguments = parser.parse_args()
    small = {
        "num-server-rounds": arguments.rounds,
        "strategy.fraction-train": 1.0,
        "train.save-every-round": arguments.rounds,
        "train.training-arguments.max-steps": 1,
        "train.training-arguments.per-device-train-batch-size": 1,
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        checkout(arguments.commit, Path(folder, "checkout")) as other,
    ):
        before = make_side(arguments.commit, other, Path(folder, "before"), small)
        after = make_side("this checkout", ROOT, Path(folder, "after"), small)
        times: dict[str, list[float]] = {before.name: [], after.name: []}
        for number in range(arguments.pairs):
            for side in (before, after) if number % 2 == 0 else (after, before):
                took = seconds(side)
                times[side.name] += took
                print(side.name, *(f"{each:.1f}" for each in took), flush=True)
    old, new = (statistics.median(times[side.name]) for side in (before, after))
    print(f"seconds of a round, medians: {old:.1f} at {before.name}, {new:.1f} here; "
          f"ratio {new / old:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
