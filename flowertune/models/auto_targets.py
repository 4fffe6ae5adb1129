"""Which modules ``model.lora.target-modules = "auto"`` stands for, on any architecture."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.config.lora import key_of, names_in
from flowertune.config.settings import WHERE, Settings
from flowertune.models.config import read_config, skeleton
from flowertune.models.known import known_config, known_models
from flowertune.models.loader import settings_source, source_at
from flowertune.models.source import Source

AUTO, ALL_LINEAR = "auto", "all-linear"
# Of queries and values, as in LoRA (Hu et al., 2021), by the names that architectures give them.
_PAIRS = (
    ("q_proj", "v_proj"), ("query", "value"), ("q", "v"), ("q_lin", "v_lin"), ("Wq", "Wv"),
    ("project_q", "project_v"), ("wq", "wv"), ("w_q", "w_v"), ("query_proj", "value_proj"),
)  # fmt: skip
# Where one layer makes both, or low ranks stand between (multi-head latent attention).
_TOGETHER = (
    ("qkv_proj",), ("query_key_value",), ("c_attn",), ("Wqkv",), ("qkv",), ("W_pack",),
    ("att_proj",), ("in_proj_qkv",), ("q_b_proj", "kv_b_proj"), ("q_proj", "kv_b_proj"),
    ("q_proj", "kv_proj"), ("q_b_proj", "kv_proj"),
)  # fmt: skip
# What fused kernels of state-space layers call as a module; of others they read the weights, and
# an adapter on those would do nothing.
_STATE_SPACE = (("in_proj",), ("in_proj_qkvz",))
_ATTENTION = re.compile(r"attention|attn|mla", re.IGNORECASE)
# Of images and sound, or from an encoder: no text goes through them.
_UNUSED = re.compile(
    r"vision|visual|image|img_|audio|speech|encoder_attn|cross_?attn|crossattention", re.IGNORECASE
)
_BLOCK = re.compile(r"mixer|mamba|ssm|recurrent|rwkv|lstm|conv", re.IGNORECASE)


@dataclass(frozen=True)
class Targets:
    """The modules that get an adapter, and what they are: a clause for the log."""

    modules: list[str] | str
    what: str


def target_modules(cfg: Settings) -> list[str] | str:
    """Return what ``model.lora.target-modules`` names, as PEFT takes it.

    A name is the end of a module's; a star in it stands for any part between two dots. "auto" is
    PEFT's own choice for the architecture, or where PEFT names none, the attention's projections of
    queries and values, found in the model's configuration: no weights are needed.

    Raises
    ------
    UserError
        If "auto" finds nothing in the model, or the model's configuration cannot be had.
    """
    given = str(cfg.model.lora.target_modules)
    if given == ALL_LINEAR:
        return given
    if given != AUTO:
        names = names_in(given)
        # PEFT takes one text for a regular expression of whole names.
        keys = "|".join(map(key_of, names))
        return rf"(?:.*\.)?(?:{keys})" if "*" in given else names
    return auto_targets(cfg).modules


def auto_targets(cfg: Settings) -> Targets:
    """Return what "auto" stands for with the base model of the settings.

    Raises
    ------
    UserError
        If the model has no linear layers, or its configuration cannot be had.
    """
    known = cfg.model.name in known_models()
    source = source_at(cfg.model.name, cfg) if known else settings_source(cfg, weights=False)
    found = _targets_of(source, cfg.model.name if known else None)
    if found is None:
        raise UserError(
            f"model.lora.target-modules is {AUTO!r}, and {cfg.model.name} has no linear layers for "
            f"an adapter; name another model, or modules of this one ({WHERE})."
        )
    return found


# Keyed by where the model is: a folder's files do not change while a process has them in use.
@cache
def _targets_of(source: Source, known: str | None) -> Targets | None:
    config = known_config(known) if known else read_config(source)
    if named := peft_default(config.model_type):
        return Targets(named, f"PEFT's choice for {config.model_type}")
    return find_targets(skeleton(source, config))


def peft_default(model_type: str) -> list[str] | str | None:
    """Return what PEFT adapts by default in models of this type; None where it names nothing."""
    # Late: peft takes seconds to import.
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as NAMED

    return NAMED.get(model_type)


def find_targets(model: Any) -> Targets | None:
    """Return the attention's projections of queries and values; None without any linear layer.

    Where one layer makes both, that is it; of a model without attention, such as a state-space
    model, the input projections of its blocks.

    Parameters
    ----------
    model : PreTrainedModel
        With or without weights (``config.skeleton``).
    """
    layers: dict[str, dict[str, str]] = {"attention": {}, "block": {}, "other": {}}
    for owners, name, target in _linear_layers(model):
        layers[_kind(owners)].setdefault(name, target)
    found = _among(layers)
    return found and replace(found, modules=_without_unused(model, found.modules))


def _among(layers: Mapping[str, Mapping[str, str]]) -> Targets | None:
    attention, block, other = layers.values()
    if chosen := _chosen(attention, (*_PAIRS, *_TOGETHER)):
        return Targets(chosen, "the projections of its attention")
    if attention:
        return Targets(sorted(attention.values()), "the linear layers of its attention")
    if chosen := _chosen(block, (*_PAIRS, *_STATE_SPACE)):
        return Targets(chosen, "the input projections of its blocks, as it has no attention")
    for found in (block, other):
        if found:
            return Targets(sorted(found.values()), "its linear layers")
    return None


def _without_unused(model: Any, targets: list[str] | str) -> list[str] | str:
    """Return the targets; by their whole names where layers without text have the same names."""
    ends = tuple(f".{target}" for target in targets)
    named = [name for name, _ in model.named_modules() if f".{name}".endswith(ends)]
    used = [name for name in named if not _UNUSED.search(name)]
    return targets if len(used) == len(named) else used


def _chosen(layers: Mapping[str, str], groups: tuple[tuple[str, ...], ...]) -> list[str]:
    for group in groups:
        if layers.keys() >= {*group}:
            return [layers[name] for name in group]
    return []


def _linear_layers(model: Any) -> Iterator[tuple[list[str], str, str]]:
    """Yield of each linear layer but the head: what it is in, its name, and how PEFT finds it."""
    from transformers.pytorch_utils import Conv1D  # late, as above

    head = model.get_output_embeddings()
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    for full, module in model.named_modules():
        if module is head or not isinstance(module, torch.nn.Linear | Conv1D):
            continue
        if _UNUSED.search(full):
            continue
        parts = full.split(".")
        while len(parts) > 1 and kinds[".".join(parts[:-1])].endswith("Linear"):
            parts.pop()  # a wrapper around it has the name that says what it is
        above = [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
        owners = [f"{kinds[one]} {one.rpartition('.')[2]}" for one in above]
        yield owners, parts[-1], ".".join(full.split(".")[len(parts) - 1 :])


def _kind(owners: list[str]) -> str:
    # A layer in a list, such as self_attn.0, is what the list is.
    near = owners[: 2 if owners and owners[0].split()[-1].isdigit() else 1]
    for kind, words in (("attention", _ATTENTION), ("block", _BLOCK)):
        if any(words.search(owner) for owner in near):
            return kind
    return "other"
