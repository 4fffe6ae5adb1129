"""Checkpoints for tests: a real adapter of a tiny model, and a manifest that fits it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import challenges


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
    weights = (folder / "adapter_model.safetensors").read_bytes()
    return {
        "format": 1,
        "official": True,
        "differences": [],
        "static": static,
        "static-sha256": challenges.digest(static),
        "supernodes": 50,
        "partitions": 50,
        "communication": {"total-mib": 12.5},
        "protected-changed": [],
        "adapter-sha256": hashlib.sha256(weights).hexdigest(),
    }


def write_manifest(folder: Path, manifest: dict[str, Any], sealed: bool = True) -> None:
    """Write manifest.json, with its own checksum unless `sealed` is false."""
    if sealed:
        manifest = {**manifest, "manifest-sha256": challenges.digest(manifest)}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
