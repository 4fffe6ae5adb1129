"""How far two results of a round are apart that were computed with other numbers of threads.

    python -m benchmarks.replay [--model smollm2] [--steps 10] [--rounds 1]

A run with 1 thread, and a replay of its rounds in the sandbox with 1 thread and with 2, for float32
and bfloat16: what the tolerance of `python -m evaluation.replay` is made of. Two clients of four in
each round, the app's own settings but for sizes, rows of the finance sample.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Measure, and print a line for each type and number of threads."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--model", choices=("tiny", "smollm2"), default="tiny")
    options.add_argument("--steps", type=int, default=10)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--dtypes", nargs="+", default=DTYPES)
    options.add_argument("--child", help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        _train(arguments)
        return
    folder = Path(tempfile.mkdtemp(prefix="replay-tolerance-"))
    try:
        for dtype in arguments.dtypes:
            work = folder / dtype
            words = [sys.executable, "-m", "benchmarks.replay", *sys.argv[1:], "--child", str(work)]
            words += ["--dtypes", dtype]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
                   "FLWR_HOME": str(work / "flwr")}  # fmt: skip
            subprocess.run(words, check=True, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
            _replay(work, dtype)
    finally:
        shutil.rmtree(folder)


def _train(arguments: argparse.Namespace) -> None:
    from flwr.supercore.task_identity import TaskIdentity

    from tests.apps import default_settings, rendered
    from tests.local_grid import run_app
    from tests.tiny import save_tiny_llama

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    work = Path(arguments.child)
    work.mkdir(parents=True)
    rows = rendered("finance") / "samples" / "finance.jsonl"
    shutil.copy(rows, work / "rows.jsonl")
    model = "smollm2-135m-instruct"
    if arguments.model == "tiny":
        model = str(save_tiny_llama(work / "model"))
    cfg = {
        **default_settings("finance"),
        "results-dir": str(work / "results"),
        "model.name": model,
        "model.quantization": 0,
        "model.dtype": arguments.dtypes[0],
        "static.dataset.name": str(work / "rows.jsonl"),
        "static.num-supernodes": 0,
        "strategy.fraction-train": 0.5,
        "num-server-rounds": arguments.rounds,
        "train.training-arguments.max-steps": arguments.steps,
        "train.training-arguments.per-device-train-batch-size": arguments.batch,
    }
    run_app(cfg, 4, 1)


def _replay(work: Path, dtype: str) -> None:
    from submissions.archive import opened
    from submissions.replay.replay import Asked, replay
    from submissions.replay.sandbox import Bounds
    from tests.submissions.replays import bundle_of

    run = work / "results" / "1"
    model = work / "model"
    with opened(bundle_of(run, work / "bundle")) as bundle:
        for threads in (1, 2):
            asked = Asked(
                0, "nonce", run, model if model.is_dir() else None, work / "rows.jsonl",
                Bounds(12 * 2**30, 1.0, threads), gpu=False,
            )  # fmt: skip
            found = replay(bundle, asked, lambda text: None)
            for result in found.results:
                print(f"{dtype}, {threads} threads, round {result.server_round}: {_told(result)}",
                      flush=True)  # fmt: skip


def _told(result: Any) -> str:
    loss = [d.sentence for d in result.differences if d.what in ("loss", "training")]
    update = "unknown" if result.update is None else f"{result.update:.3g}"
    return f"{result.verdict}, update {update} apart; {'; '.join(loss) or 'the same loss'}"


if __name__ == "__main__":
    main()
