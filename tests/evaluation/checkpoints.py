"""Checkpoints for tests: a real adapter of a tiny model, and a manifest that fits it."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForCausalLM

import challenges
from evaluation.submission import Submission
from flowertune.base.hashing import json_sha256
from flowertune.rules.manifest import SEAL, seal
from flowertune.rules.provenance import Library
from flowertune.run import checkpoint

# A release as if it were on record, and its library as it is installed.
RELEASES = {"1.0.0": "ab" * 32}
RELEASED = Library("1.0.0", RELEASES["1.0.0"])


def save_checkpoint(folder: Path, base: Path, challenge: str = "finance", seed: int = 1) -> Path:
    """Write an adapter of `base` with random weights and an official manifest to `folder`."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", revision="main")
    model = get_peft_model(model, config)
    adapter = get_peft_model_state_dict(model)
    manifest = manifest_of(challenges.static_table(challenge, "50-supernodes"), str(base))
    checkpoint.save_checkpoint(
        folder, adapter, checkpoint.checkpoint_config(config, adapter), manifest
    )
    return folder


def official_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in a folder, without its checksum."""
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    return {key: value for key, value in manifest.items() if key != SEAL}


def manifest_of(static: dict[str, Any], base: str) -> dict[str, Any]:
    """The manifest of a run that kept these values, but for what `save_checkpoint` adds."""
    rows = {
        "dataset": static["dataset.name"],
        "revision": static["dataset.revision"],
        "rows": 10,
        "unique-rows": 9,
        "sha256": "cd" * 32,
    }
    settings = {f"static.{key}": value for key, value in static.items()}
    return {
        "format": 4,
        "kind": "adapter",
        "challenge": static["challenge"],
        "rules": static["rules"],
        "rules-version": static["rules-version"],
        "official": True,
        "differences": [],
        "static": static,
        "static-sha256": json_sha256(static),
        "supernodes": 50,
        "partitions": 50,
        "rounds": 200,
        "round": 2,
        "seed": 42,
        "settings": {
            **settings,
            "model.name": base,
            "model.revision": "main",
            "seed": 42,
            "num-server-rounds": 200,
        },
        "base-model": {"name": base, "revision": "main", "path": base},
        "rows": {"0": rows, "49": rows},
        "communication": {
            "sent-bytes": 6 * 2**20,
            "received-bytes": 6 * 2**20 + 2**19,
            "total-mib": 12.5,
            "budget-mib": static["budget-mib"],
        },
        "library": RELEASED.record(),
        "chain": {"round": 2, "sha256": "ef" * 32},
        "app": {"files": {"app/strategy.py": "12" * 32}, "sha256": "34" * 32},
        "environment": {"packages": {"torch": "2.0"}},
        "hardware": {
            "gpus": [],
            "machine": "x86_64",
            "system": "Linux",
            "processor": None,
            "cores": 2,
            "threads": None,
        },
    }


def submission_of(static: dict[str, Any]) -> Submission:
    """What is read of an official checkpoint of a run that kept these values."""
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "owner/model",
        "revision": "main",
        "r": 4,
        "lora_alpha": 8,
    }
    hashes = {
        "adapter-config": config,
        "adapter-config-sha256": "a" * 64,
        "adapter-sha256": "b" * 64,
    }
    manifest = seal({**manifest_of(static, "owner/model"), **hashes})
    return Submission(Path(), Path(), config, manifest, None, "a" * 64, "b" * 64)


def write_manifest(folder: Path, manifest: dict[str, Any], sealed: bool = True) -> None:
    """Write manifest.json, with its own checksum unless `sealed` is false."""
    text = json.dumps(seal(manifest) if sealed else manifest)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
