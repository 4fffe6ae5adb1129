"""Checkpoints for tests: a real adapter of a tiny model, and a manifest that fits it."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import challenges
from flowertune.base.hashing import file_sha256, json_sha256
from flowertune.rules.manifest import seal
from flowertune.rules.provenance import Library

# A release as if it were on record, and its library as it is installed.
RELEASES = {"1.0.0": "ab" * 32}
RELEASED = Library("1.0.0", RELEASES["1.0.0"])


def save_checkpoint(folder: Path, base: Path, challenge: str = "finance") -> Path:
    """Write an adapter of `base` with random weights and an official manifest to `folder`."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    model = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"))
    model.save_pretrained(str(folder))
    write_manifest(folder, official_manifest(folder, challenge))
    return folder


def official_manifest(folder: Path, challenge: str = "finance") -> dict[str, Any]:
    """The manifest of an official run, unsealed."""
    static = challenges.static_table(challenge, "50-supernodes")
    return manifest_of(static, file_sha256(folder / "adapter_model.safetensors"))


def manifest_of(static: dict[str, Any], adapter_sha256: str, mib: float = 12.5) -> dict[str, Any]:
    """The manifest of a run that kept these values, unsealed."""
    return {
        "format": 2,
        "official": True,
        "differences": [],
        "static": static,
        "static-sha256": json_sha256(static),
        "supernodes": 50,
        "partitions": 50,
        "communication": {"total-mib": mib},
        "library": RELEASED.record(),
        "adapter-sha256": adapter_sha256,
    }


def write_manifest(folder: Path, manifest: dict[str, Any], sealed: bool = True) -> None:
    """Write manifest.json, with its own checksum unless `sealed` is false."""
    text = json.dumps(seal(manifest) if sealed else manifest)
    (folder / "manifest.json").write_text(text, encoding="utf-8")
