"""What a result was made with: enough to repeat it."""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from evaluation import machine, tasks
from evaluation.checkpoint import Checkpoint
from evaluation.model import ModelChoice, is_folder
from evaluation.run import Pass, Plan
from evaluation.sets import Challenge
from evaluation.store import Store, store_path


def departures(known: Challenge, arguments: argparse.Namespace) -> list[str]:
    """What the user changed about the official way to compute, one phrase each."""
    found = []
    if arguments.quantization != known.quantization:
        found.append(f"quantization {arguments.quantization} (official: {known.quantization})")
    if arguments.dtype != "float32":
        found.append(f"computed in {arguments.dtype} (official: float32)")
    if arguments.answer_tokens is not None:
        found.append(f"answers cut after {arguments.answer_tokens} tokens (official: not)")
    return found


def heading(
    challenge: str, suite: str, choice: ModelChoice, models: list[str], box: str | None
) -> str:
    """The line that is printed before the model is loaded."""
    bits = f"{choice.quantization}-bit" if choice.quantization else "unquantized"
    adapter = f" with {choice.adapter}" if choice.adapter else ""
    return (
        f"Scoring {' and '.join(models)} for {challenge}, suite {suite}: {choice.base}{adapter}, "
        f"{bits}, {choice.dtype}, {choice.device}" + (f"; {box}" if box else "")
    )


def task_definitions(plan: Plan) -> dict[str, Any]:
    """The part of every lm-eval task that is plain data, by set."""
    found = {}
    for item in plan.sets:
        config = item.form(plan.suite).config()
        plain = {key: value for key, value in config.items() if not callable(value)}
        found[item.name] = {"version": tasks.VERSION, **plain}
    return found


def digest(value: Any) -> str:
    """SHA-256, in hex, of JSON-able data."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def answers_depend_on(
    plan: Plan,
    choice: ModelChoice,
    checkpoint: Checkpoint | None,
    model: str,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Everything that can change an answer, and so tells one store of answers from another."""
    versions = machine.versions()
    return {
        "model": model,
        "base": choice.base,
        "revision": choice.revision,
        "base-files": _fingerprint(choice.base),
        "adapter": checkpoint.sha256 if checkpoint and model == "checkpoint" else None,
        "quantization": choice.quantization,
        "dtype": choice.dtype,
        "merge": choice.merge,
        "device": choice.device.split(":")[0],
        "suite": plan.suite,
        "tasks": task_definitions(plan),
        "documents": {item.name: plan.documents[item.name].sha256 for item in plan.sets},
        "seed": plan.seed,
        "answer-tokens": arguments.answer_tokens,
        "batch-size": arguments.batch_size if choice.dtype != "float32" else None,
        "official-batching": getattr(arguments, "official_batching", False),
        "versions": {name: versions.get(name) for name in ("torch", "transformers", "peft")},
    }


def open_store(folder: Path, facts: dict[str, Any]) -> Store:
    """The store of answers that depend on `facts`. Replayed batches keep none: they go together."""
    return Store(None if facts["official-batching"] else store_path(folder, facts))


def _fingerprint(base: str) -> list[Any] | None:
    """Names, sizes and times of a model folder's files: enough to notice that it was replaced."""
    if not is_folder(base):
        return None
    files = sorted(Path(base).expanduser().iterdir())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def rules(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Under which rules a checkpoint says it was made."""
    static = ((checkpoint.manifest if checkpoint else None) or {}).get("static") or {}
    return {"name": static.get("rules"), "version": static.get("rules-version")}


def full(
    plan: Plan,
    choice: ModelChoice,
    checkpoint: Checkpoint | None,
    arguments: argparse.Namespace,
    passes: dict[str, Pass],
    started: float,
) -> dict[str, Any]:
    """The recipe as it stands in results.json."""
    first = next(iter(passes.values())).lm_eval
    manifest = (checkpoint.manifest if checkpoint else None) or {}
    definitions = task_definitions(plan)
    prompts = {
        name: digest([answer.document.get("context", answer.document) for answer in answers])
        for name, answers in next(iter(passes.values())).answers.items()
    }
    return {
        "base-model": {
            "name": choice.base,
            "revision": choice.revision,
            "given-by": "--model" if arguments.model else "checkpoint",
        },
        "adapter": None
        if choice.adapter is None or checkpoint is None
        else {
            "folder": str(choice.adapter),
            "sha256": checkpoint.sha256,
            "manifest-sha256": manifest.get("manifest-sha256"),
            "merged": choice.merge,
        },
        "quantization": choice.quantization,
        "quantization-type": {4: "fp4", 8: "int8", 0: None}[choice.quantization],
        "dtype": choice.dtype,
        "device": choice.device,
        "batch-size": arguments.batch_size,
        "official-batching": getattr(arguments, "official_batching", False),
        "limit": arguments.limit,
        "answer-tokens": arguments.answer_tokens,
        "samples": plan.samples,
        "seed": plan.seed,
        "tasks": definitions,
        "task-sha256": {name: digest(task) for name, task in definitions.items()},
        "prompts-sha256": prompts,
        "lm-eval-task-hashes": first.get("task_hashes"),
        "versions": machine.versions(),
        "hardware": machine.hardware(choice.device),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": {
            **{name: round(one.seconds, 1) for name, one in passes.items()},
            "total": round(time.time() - started, 1),
        },
        "command-line": sys.argv[1:],
    }
