"""What a result was made with: enough to repeat it."""

import argparse
import os
import platform
import sys
import time
from typing import Any

import torch
from huggingface_hub import constants

from evaluation import tasks
from evaluation.base_model import BaseModel
from evaluation.checkpoint import Checkpoint
from evaluation.model import ModelChoice
from evaluation.model import config as model_config
from evaluation.run import Pass, Plan
from evaluation.sets import Challenge
from evaluation.store import Store, store_path
from flowertune.base.hashing import json_sha256
from flowertune.base.versions import package_versions
from flowertune.models.quantized import Quantization
from flowertune.models.resolve import folder_of
from flowertune.rules.provenance import installed_library

PACKAGES = (
    "torch", "transformers", "peft", "lm_eval", "datasets", "bitsandbytes", "tokenizers", "numpy",
    "accelerate",
)  # fmt: skip
OFFICIAL_HUB = "https://huggingface.co"


def deviations(
    known: Challenge, arguments: argparse.Namespace, base: BaseModel, how: Quantization | None
) -> list[str]:
    """Return what is not the official way to compute, one phrase each."""
    changes = []
    if base.difference is not None:
        changes.append(base.difference)
    if constants.ENDPOINT != OFFICIAL_HUB:
        changes.append(f"read from the hub at {constants.ENDPOINT} (official: {OFFICIAL_HUB})")
    if arguments.quantization != known.quantization:
        changes.append(f"quantization {arguments.quantization} (official: {known.quantization})")
    if how and how.from_model:
        changes.append(f"a base model that comes quantized to {how} (official: unquantized files)")
    if arguments.dtype != "float32":
        changes.append(f"computed in {arguments.dtype} (official: float32)")
    if arguments.backend != "transformers":
        changes.append(f"computed by {arguments.backend} (the exact scorer: transformers)")
    if arguments.answer_tokens is not None:
        changes.append(f"answers cut after {arguments.answer_tokens} tokens (official: not)")
    return changes


def heading(
    challenge: str,
    suite: str,
    choice: ModelChoice,
    checkpoint: Checkpoint | None,
    models: list[str],
    sandbox: str | None,
) -> str:
    """Return the line that is printed before the model is loaded."""
    bits = f"{choice.quantization}-bit" if choice.quantization else "unquantized"
    adapter = f" with {checkpoint.path}" if checkpoint and choice.adapter else ""
    return (
        f"Scoring {' and '.join(models)} for {challenge}, suite {suite}: {choice.base}{adapter}, "
        f"{bits}, {choice.dtype}, {choice.device}" + (f"; {sandbox}" if sandbox else "")
    )


def task_definitions(plan: Plan) -> dict[str, Any]:
    """Return the part of every lm-eval task that is plain data, by set."""
    definitions = {}
    for item in plan.sets:
        config = item.form(plan.suite).config()
        plain = {key: value for key, value in config.items() if not callable(value)}
        definitions[item.name] = {"version": tasks.VERSION, **plain}
    return definitions


def answers_depend_on(
    plan: Plan,
    choice: ModelChoice,
    checkpoint: Checkpoint | None,
    model: str,
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    """Return what can change an answer, and so tells one store of answers from another."""
    return {
        "model": model,
        "base": choice.base,
        "revision": choice.revision,
        "commit": getattr(model_config(choice), "_commit_hash", None),
        "base-files": _fingerprint(choice.base),
        "adapter": checkpoint.digest if checkpoint and model == "checkpoint" else None,
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
        "screen": arguments.screen,
        "dequantize": arguments.dequantize,
        "official-batching": getattr(arguments, "official_batching", False),
        "trust-remote-code": choice.trust_remote_code,
        "library": installed_library().sha256,
        "versions": package_versions(("torch", "transformers", "peft")),
    }


def open_store(facts: dict[str, Any]) -> Store:
    """Open the store of answers that depend on `facts`.

    Replayed batches keep none, since one answer depends on the others; nor does a cache that
    cannot be written.
    """
    path = None if facts["official-batching"] else store_path(facts)
    try:
        return Store(path)
    except OSError as error:
        print(
            f"Answers are not kept while they come ({error.strerror}: {path}): a run that is "
            "stopped will begin again. Set FLOWERTUNE_CACHE to a folder that can be written.",
            file=sys.stderr,
        )
        return Store(None)


def _fingerprint(base: str) -> list[Any] | None:
    """Names, sizes and times of a model folder's files: enough to notice that it was replaced."""
    folder = folder_of(base)
    if folder is None:
        return None
    # A link may lead nowhere; the hub's cache has links, whose names are their content's.
    stats = {path.name: path.stat() for path in sorted(folder.iterdir()) if path.exists()}
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()]


def rules(checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return the rules under which a checkpoint says it was made."""
    name, version = (checkpoint.rules if checkpoint else None) or (None, None)
    return {"name": name, "version": version}


def hardware(device: str) -> dict[str, Any]:
    """Return processor, cores, and the accelerator if one was used."""
    facts: dict[str, Any] = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["gpu-memory-peak-bytes"] = torch.cuda.max_memory_allocated(device)
    return facts


def build(
    plan: Plan,
    choice: ModelChoice,
    base: BaseModel,
    how: Quantization | None,
    checkpoint: Checkpoint | None,
    arguments: argparse.Namespace,
    passes: dict[str, Pass],
    started: float,
) -> dict[str, Any]:
    """Return the provenance of a result as it stands in results.json."""
    first = next(iter(passes.values())).lm_eval
    definitions = task_definitions(plan)
    prompts = {
        name: json_sha256([answer.document.get("context", answer.document) for answer in answers])
        for name, answers in next(iter(passes.values())).answers.items()
    }
    return {
        "base-model": {
            "name": base.name,
            "revision": base.revision,
            # what a branch pointed at, on the hub
            "commit": getattr(model_config(choice), "_commit_hash", None),
            "given-by": base.given_by,
            "of-checkpoint": checkpoint.base if checkpoint else None,
        },
        "hub": constants.ENDPOINT,
        "adapter": None
        if choice.adapter is None or checkpoint is None
        else {
            "folder": str(checkpoint.path),
            "digest": checkpoint.digest,
            "sha256": checkpoint.sha256,
            "manifest-sha256": checkpoint.manifest_sha256,
            "merged": choice.merge,
        },
        "quantization": choice.quantization,
        "quantization-type": how and how.kind,
        "quantized-by": how and ("the model's files" if how.from_model else "the scorer"),
        "dtype": choice.dtype,
        "device": choice.device,
        "backend": arguments.backend,
        "batch-size": arguments.batch_size,
        "screen": arguments.screen,
        "dequantize": arguments.dequantize,
        "computed": {name: one.computed for name, one in passes.items()},
        "official-batching": getattr(arguments, "official_batching", False),
        "limit": arguments.limit,
        "answer-tokens": arguments.answer_tokens,
        "samples": plan.samples,
        "seed": plan.seed,
        "tasks": definitions,
        "task-sha256": {name: json_sha256(task) for name, task in definitions.items()},
        "prompts-sha256": prompts,
        "lm-eval-task-hashes": first.get("task_hashes"),
        "library": installed_library().record(),
        "versions": package_versions(
            PACKAGES if arguments.backend == "transformers" else (*PACKAGES, arguments.backend)
        ),
        "hardware": hardware(choice.device),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": {
            **{name: round(one.seconds, 1) for name, one in passes.items()},
            "total": round(time.time() - started, 1),
        },
        "command-line": arguments.words,
    }
