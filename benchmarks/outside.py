"""Seconds of a client's round outside of its steps, here and at an earlier commit, in one run.

    git archive 6f07a24 | tar -x -C FOLDER && git -C FOLDER init && git -C FOLDER add -A
    git -C FOLDER commit -m old
    python -m benchmarks.outside FOLDER [--rounds 3] [--repeats 3] [--quantization 0]

SmolLM2-135M-Instruct, 5 clients of 1 step of 1 row in each round, over a grid of the process. Both
sides run in a process of their own, in turn; CPU seconds of the messages from round 2 on, which
find model and rows in the worker; the median of a side's runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).parent.parent
MARK = "seconds: "


def side(rounds: int, quantization: int) -> None:
    """Print the seconds of the tree in the working directory, whichever of the two it is."""
    sys.path[:0] = [".", "template"]
    import torch
    from flwr.supercore.task_identity import TaskIdentity

    from benchmarks import round as benchmark
    from tests import local_grid

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # what the benchmark's clock reads
    benchmark.STEPS = benchmark.BATCH = 1
    lent = getattr(local_grid, "in_this_process", lambda challenge: nullcontext())
    clock = benchmark.Clock()
    with tempfile.TemporaryDirectory() as name:
        benchmark.write_data(Path(name))
        cfg = benchmark.settings(quantization, rounds, Path(name))
        with lent("finance"), clock.running():
            local_grid.run_app(cfg, benchmark.NODES, 1)
    steps = clock.steps if hasattr(clock, "steps") else clock.fit  # type: ignore[attr-defined]
    later = slice(benchmark.CLIENTS, None)
    outside = [h - s for h, s in zip(clock.handler[later], steps[later], strict=True)]
    print(MARK + json.dumps(statistics.median(outside)))


def measured(folder: Path, rounds: int, quantization: int) -> float:
    """Return the seconds of one tree, from a process of its own."""
    command = [sys.executable, __file__, "--side", str(rounds), str(quantization)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        raise SystemExit(done.stderr)
    return float(lines[-1].removeprefix(MARK))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.outside",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path, help="a tree of the earlier commit")
    parser.add_argument("--rounds", type=int, default=3, help="of a run (default 3)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--quantization", type=int, default=0, help="0, 4 or 8 (default 0)")
    arguments = parser.parse_args()
    sides: dict[str, list[float]] = {"here": [], "earlier": []}
    for _ in range(arguments.repeats):
        for name, folder in (("here", ROOT), ("earlier", arguments.old)):
            sides[name].append(measured(folder, arguments.rounds, arguments.quantization))
    here, earlier = (statistics.median(values) for values in sides.values())
    print(f"outside of the steps: {here * 1000:.1f} ms here, {earlier * 1000:.1f} ms earlier, "
          f"ratio {here / earlier:.2f}")  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        side(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
