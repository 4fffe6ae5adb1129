"""The checks, each for a process of its own; what one returns is its result in the table."""

import contextlib
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch

from evaluation import cli
from evaluation.session import Session
from flowertune.base.errors import UserError
from flowertune.base.files import read_jsonl
from flowertune.client.task import ClientTask
from flowertune.models.loader import compute_dtype
from tests import apps
from tests.gpu import sharing
from tests.gpu.bench import (
    BATCH,
    CHECKPOINTING,
    ROOT,
    Bench,
    Failed,
    Run,
    Skipped,
    forget,
    little_memory,
    peak,
    smaller,
    train,
)

Check = Callable[[Bench], str]
PRECISIONS = {"4 bit": 4, "8 bit": 8, "bfloat16": 0}
# A round's log has some ten lines; bitsandbytes said a word for every layer and step.
MOST_LINES = 60
PLAN_OFF = 0.25  # by which the plan may differ from what was measured


def a_round(bench: Bench, bits: int) -> str:
    """Two rounds of two clients, twice: finite, moved, the same bits, and the memory as planned."""
    dtype = _dtype(bench)
    layers = bench.layers(bits, dtype=dtype)
    runs, cfg = [], {}
    for number in (1, 2):
        cfg = bench.settings(f"round-{bits}-{number}", bits, layers, **{"model.dtype": dtype})
        runs.append(train(cfg))
    most = peak()
    one, two = runs
    _check_trained(one)
    if len(one.log) > MOST_LINES:
        raise Failed(f"the log of two rounds has {len(one.log)} lines, such as {one.log[-1][:80]}")
    if one.sha256 != two.sha256:
        raise Failed(f"the same seed gave other bits: losses {one.losses} and {two.losses}")
    said = f"{layers} layers, {dtype}, losses {_losses(one)}, second run {two.seconds:.0f} s"
    if most is None:
        return said
    planned = bench.planned(cfg).tensors
    if abs(planned / most - 1) > PLAN_OFF:
        raise Failed(f"{said}; the plan says {planned:.2f} GB, and {most:.2f} were taken")
    return f"{said}; plan {planned:.2f} GB"


def same_bits(bench: Bench) -> str:
    """A run in each precision, in two processes that know nothing of each other."""
    found = []
    for number in (1, 2):
        file = bench.folder / f"bits-{number}.json"
        bench.save(bench.folder / "bench.json")
        words = [
            sys.executable,
            "-m",
            "tests.gpu.checks",
            str(bench.folder / "bench.json"),
            str(file),
        ]
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode:
            raise Failed(f"a run of its own failed: {done.stderr.strip()[-300:]}")
        found.append(json.loads(file.read_text("utf-8")))
    return compare(*found)


def compare(one: dict[str, str], two: dict[str, str]) -> str:
    """Say in which precisions two processes found the same bits.

    Raises
    ------
    Failed
        If they did not in one.
    """
    other = [name for name in one if one[name] != two[name]]
    if other:
        raise Failed(
            f"the same seed gave other bits in another process: {', '.join(other)}; the promise of "
            "same seed, same bits does not hold for them on this card"
        )
    return f"two processes, the same adapters: {', '.join(one)}"


def bits_of(bench: Bench) -> dict[str, str]:
    """The digest of a run's adapter in each precision, with and without checkpointing."""
    small, found = smaller(bench), {}
    for name, bits in PRECISIONS.items():
        for checkpointing in (True, False):
            key = f"{name}, {'with' if checkpointing else 'without'} checkpointing"
            changes = {CHECKPOINTING: checkpointing, "num-server-rounds": 1}
            cfg = small.settings(f"bits-{bits}-{checkpointing}", bits, small.whole, **changes)
            found[key] = train(cfg, run_id=_next(cfg)).sha256
            forget()
    return found


def float16(bench: Bench) -> str:
    """A round as on a card without bfloat16: in float16, quantized and not; and what auto is."""
    small, said = smaller(bench), []
    for bits in (4, 0):
        cfg = small.settings(f"float16-{bits}", bits, small.whole, **{"model.dtype": "float16"})
        run = train(cfg)
        _check_trained(run)
        said.append(f"{bits} bit" if bits else "not quantized")
        forget()
    with patch.object(torch.cuda, "is_bf16_supported", lambda *_, **__: False):
        auto = compute_dtype(apps.settings({"model.dtype": "auto"}))
    name = str(auto).removeprefix("torch.")
    return f"finite, and moves ({', '.join(said)}); auto is {name} without bfloat16"


def short_of_memory(bench: Bench) -> str:
    """A client runs out of memory: the sentence, and a worker that goes on."""
    small = smaller(bench)
    long = {"train.seq-length": 512, CHECKPOINTING: False, "num-server-rounds": 1}
    cfg = small.settings("no-memory", 4, small.whole, **long)
    with little_memory(bench, 0.3, (ClientTask, "__init__"), (ClientTask, "load_adapter")):
        try:
            train({**cfg, BATCH: 8 if bench.rehearsal else 4 * 16})
        except UserError as error:
            said = str(error)
        else:
            raise Failed("a batch that does not fit trained all the same: too large a card")
    for word in (BATCH, "train.seq-length", CHECKPOINTING, "--num-gpus"):
        if word not in said:
            raise Failed(f"the error does not name {word}: {said}")
    left = 0.0 if bench.rehearsal else torch.cuda.memory_reserved(0) / 1e9
    if left > 0.2:
        raise Failed(f"{left:.2f} GB were not given back")
    _check_trained(train(cfg, run_id=2))
    first = said[said.index("this client") :].partition(":")[0]
    return f"“{first}: …”; {left:.2f} GB kept; the same worker then trains"


def scoring(bench: Bench) -> str:
    """The scorer with too little memory for its batch: it halves it, and says the same."""
    small = smaller(bench)
    cfg = small.settings("scored", 4, small.whole, **{"num-server-rounds": 1})
    run = train(cfg)
    forget()
    (checkpoint,) = run.folder.glob("peft_*")
    whole, _ = _score(checkpoint)
    forget()
    # Answers are in float32, and a dequantized matrix of 7B shapes takes 0.24 GB.
    with little_memory(bench, 0.8, (Session, "load"), (Session, "load")):
        less, printed = _score(checkpoint)
    if whole != less:
        raise Failed(f"other answers with less memory: {whole} and {less}")
    said = [line for line in printed.splitlines() if "ut of memory" in line]
    if not said:
        raise Failed("the scorer never ran out of memory: the limit is too high for this card")
    return f"the same {len(whole)} answers; it said: {said[0]}"


def shared_card(bench: Bench) -> str:
    """Two clients on one GPU, by `flwr run`."""
    layers = bench.layers(4, share=0.5)
    cfg = bench.settings("shared", 4, layers, **{"num-server-rounds": 1})
    _, most = sharing.run(bench, "shared", cfg, 0.0 if bench.rehearsal else 0.5)
    used = f", {most:.1f} GB of the card in use" if most else ""
    return f"two clients of {layers} layers trained at once, --num-gpus 0.5{used}"


def two_cards(bench: Bench) -> str:
    """A client on each of two GPUs, and the same bits on either."""
    if bench.cards < 2:
        raise Skipped(f"needs two GPUs, and there is {'one' if bench.cards else 'none'}")
    small, found = smaller(bench), []
    for card in (0, 1):
        changes = {"model.device-map": f"cuda:{card}", "num-server-rounds": 1}
        cfg = small.settings(f"card-{card}", 4, small.whole, **changes)
        found.append(train(cfg).sha256)
        forget()
    if found[0] != found[1]:
        raise Failed("the same seed gave other bits on the second card")
    cfg = bench.settings("two", 4, bench.layers(4), **{"num-server-rounds": 1})
    sharing.run(bench, "two", cfg, 1.0)
    return "two clients trained at once, one on each; the same bits on either"


CHECKS: dict[str, Check] = {
    **{
        f"round, {name}": lambda bench, bits=bits: a_round(bench, bits)
        for name, bits in PRECISIONS.items()
    },
    "same seed, same bits": same_bits,
    "float16, as on a T4": float16,
    "a client out of memory": short_of_memory,
    "scoring out of memory": scoring,
    "two clients share a card": shared_card,
    "two cards": two_cards,
}


def _dtype(bench: Bench) -> str:
    native = bench.rehearsal or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if native else "float16"


def _check_trained(run: Run) -> None:
    if not all(map(math.isfinite, run.losses)):
        raise Failed(f"the losses are {run.losses}")
    from safetensors.torch import load_file

    (last, *_) = sorted(run.folder.glob("peft_*"), reverse=True)
    adapter = load_file(last / "adapter_model.safetensors")
    still = [name for name, t in adapter.items() if "lora_B" in name and not t.any()]
    if still:
        raise Failed(f"{len(still)} matrices of the adapter did not move, such as {still[0]}")


def _losses(run: Run) -> str:
    return " and ".join(f"{loss:.3f}" for loss in run.losses)


def _next(cfg: dict[str, Any]) -> int:
    """A run id that the results of a run do not have yet."""
    folder = Path(cfg["results-dir"])
    return 1 + len(list(folder.iterdir())) if folder.is_dir() else 1


def _score(checkpoint: Path) -> tuple[dict[str, str], str]:
    """Score a checkpoint on a sample; returns each row's answer, and all that was printed."""
    printed = io.StringIO()
    with (
        TemporaryDirectory(dir=checkpoint.parent, prefix="scores-") as output,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        words = [str(checkpoint), "--sample", "--unofficial", "--quantization", "4"]
        words += ["--batch-size", "64", "--answer-tokens", "4", "--output", output]
        cli.main("finance", words)
        files = sorted(Path(output).glob("rows*.jsonl"))
        rows = [row for file in files for row in read_jsonl(file)]
    return {
        str(n): json.dumps(row, sort_keys=True) for n, row in enumerate(rows)
    }, printed.getvalue()


if __name__ == "__main__":
    found = bits_of(Bench.load(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(found), "utf-8")
