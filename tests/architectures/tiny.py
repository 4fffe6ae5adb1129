"""Tiny models of any architecture: a configuration made small by the names of its values."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.architectures.values import TOKENS, merged, overrides, tiny
from tests.tiny import save_byte_tokenizer


def causal_architectures() -> list[str]:
    """The model types that the installed transformers continues texts with."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str) -> Any:
    """The configuration of a tiny model of this type, with no more layers than kinds of layers."""
    kind = CONFIG_MAPPING[model_type]
    given = overrides().get(model_type, {})
    try:
        defaults = kind().to_dict()
    except Exception:  # its own defaults do not go together: it is all given
        defaults = {}
    return kind(**merged(tiny(defaults), given))


def save_tiny_model(model_type: str, folder: Path, seed: int = 0) -> str:
    """Write a model with random weights (float32) and a byte-level tokenizer to ``folder``.

    Returns the name of the model's class; "" where transformers cannot make the model that the
    configuration describes: there are no weights then.
    """
    config = tiny_config(model_type)
    config.save_pretrained(folder)
    save_byte_tokenizer(folder)
    torch.manual_seed(seed)
    try:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception:  # each has its own; what the library says of it is checked
        return ""
    _spread(model)
    model.generation_config = GenerationConfig(**TOKENS)
    model.save_pretrained(folder)
    return type(model).__name__


def _spread(model: Any) -> None:
    """Draw linear layers and embeddings anew, so that what a model says depends on its input.

    As drawn by default, a narrow model says nearly the same after any text.
    """
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, torch.nn.Parameter) and weight.dim() == 2:
                embeds = isinstance(module, torch.nn.Embedding)
                weight.normal_(std=1.0 if embeds else 1.5 * weight.shape[-1] ** -0.5)
        head, texts = model.get_output_embeddings(), model.config.get_text_config()
        if head is not None and getattr(texts, "tie_word_embeddings", False):
            head.weight.mul_(0.3)
