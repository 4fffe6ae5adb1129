"""The shapes of a base model and its adapter, from its config alone: no weights are read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from flowertune.config.settings import Settings
from flowertune.models.adapter import adapter_shapes
from flowertune.models.config import read_config, skeleton
from flowertune.models.loader import settings_source, source_at


@dataclass(frozen=True)
class Architecture:
    """What the estimates need to know of a model; counts are numbers of values, not bytes.

    ``quantizable`` counts the weights that bitsandbytes quantizes (linear layers but the output
    head), ``rows`` their output rows, ``kept`` everything else. ``adapted_inputs`` is the sum of
    the input widths of all adapted layers. ``intermediate`` is the width inside a layer's MLP,
    ``attention`` that of all its query heads together.
    """

    parameters: int
    quantizable: int
    rows: int
    kept: int
    layers: int
    hidden: int
    intermediate: int
    attention: int
    vocabulary: int
    adapter: Mapping[str, tuple[int, ...]]
    adapted_inputs: int
    adapted_modules: tuple[str, ...]

    @property
    def adapter_parameters(self) -> int:
        """Values in one adapter."""
        return sum(torch.Size(shape).numel() for shape in self.adapter.values())


def known_models() -> dict[str, dict[str, Any]]:
    """Return the config values that ship with the library, by model name."""
    text = Path(__file__).with_name("known_models.json").read_text("utf-8")
    return json.loads(text)


def model_config(cfg: Settings) -> Any:
    """Return the transformers config of ``model.name``: shipped, from a folder, or from the hub.

    Raises
    ------
    UserError
        If it cannot be had, or is of an architecture that transformers does not know.
    """
    name = cfg.model.name
    if name in known_models():
        values = dict(known_models()[name])
        return AutoConfig.for_model(values.pop("model_type"), **values)
    return read_config(settings_source(cfg, weights=False))


def architecture(cfg: Settings, peft_config: Any) -> Architecture:
    """Return the shapes of the configured model with the configured adapter on it.

    Raises
    ------
    UserError
        If the model's config cannot be had, or the adapter does not fit the model.
    """
    config = model_config(cfg)
    base = skeleton(source_at(cfg.model.name, cfg), config)
    head = base.get_output_embeddings()
    linear = [m for m in base.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    quantizable = sum(module.weight.numel() for module in linear)
    rows = sum(module.out_features for module in linear)
    parameters = sum(p.numel() for p in base.parameters())
    shapes = adapter_shapes(cfg, peft_config, base)
    adapter = {name: tuple(tensor.shape) for name, tensor in shapes.items()}
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Architecture(
        parameters=parameters,
        quantizable=quantizable,
        rows=rows,
        kept=parameters - quantizable,
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        attention=heads * width,
        vocabulary=text.vocab_size,
        adapter=adapter,
        adapted_inputs=sum(shape[-1] for name, shape in adapter.items() if "lora_A" in name),
        adapted_modules=tuple(
            sorted(
                {name.split(".lora_A")[0].split(".")[-1] for name in adapter if "lora_A" in name}
            )
        ),
    )
