"""A model with random weights, written layer by layer, of which fewer layers can be had as well."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from flowertune.base.seeds import derive_seed
from tests.tiny import save_tiny_llama

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_INDEX = "model.safetensors.index.json"


def write(folder: Path, config: Mapping[str, Any], device: str) -> Path:
    """Write a model in bfloat16, a file to a layer, with a tokenizer of bytes.

    Parameters
    ----------
    config : Mapping[str, Any]
        The values of its config, ``model_type`` among them.
    device : str
        Where the weights are drawn; a GPU is much faster. They are the same whenever they are
        drawn on one kind of device.
    """
    made = write_config(folder, config)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    files: dict[str, dict[str, torch.Size]] = {}
    for name, parameter in model.named_parameters():
        found = _LAYER.search(name)
        file = f"layer-{int(found[1]):02}" if found else "rest"
        files.setdefault(f"model-{file}.safetensors", {})[name] = parameter.shape
    for file, shapes in files.items():
        tensors = {name: _drawn(name, shape, device) for name, shape in shapes.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
    where = {name: file for file, shapes in files.items() for name in shapes}
    (folder / _INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), "utf-8")
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> Any:
    """Write all of a model but its weights; returns its transformers config."""
    save_tiny_llama(folder)
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").unlink(missing_ok=True)
    values = dict(config)
    made = AutoConfig.for_model(values.pop("model_type"), **values)
    made.dtype = "bfloat16"
    with torch.device("meta"):
        made.architectures = [type(AutoModelForCausalLM.from_config(made)).__name__]
    made.save_pretrained(folder)
    return made


def first_layers(whole: Path, layers: int) -> Path:
    """Return a model of the first layers of another one, whose files it shares."""
    config = json.loads((whole / "config.json").read_text("utf-8"))
    if layers == config["num_hidden_layers"]:
        return whole
    folder = whole.with_name(f"{whole.name}-{layers}-layers")
    if folder.is_dir():
        return folder
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.safetensors", _INDEX))
    config["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    index = json.loads((whole / _INDEX).read_text("utf-8"))
    index["weight_map"] = {
        name: file
        for name, file in index["weight_map"].items()
        if not (found := _LAYER.search(name)) or int(found[1]) < layers
    }
    (folder / _INDEX).write_text(json.dumps(index), "utf-8")
    for file in set(index["weight_map"].values()):
        (folder / file).symlink_to(whole / file)
    return folder


def _drawn(name: str, shape: torch.Size, device: str) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    generator = torch.Generator(device).manual_seed(derive_seed("weights", 0, name))
    # As transformers draws them: of such a size that activations stay finite in 16 bits.
    drawn = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
    return (drawn * 0.02).cpu()
