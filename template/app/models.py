"""The base model, its LoRA adapter, and the learning rate over the rounds."""

import math
from typing import Any

import flowertune


def learning_rate(cfg: flowertune.Settings, server_round: int) -> float:
    """Return the rate of one round: it falls along a cosine from max to min (Loshchilov and
    Hutter, SGDR, 2017), once over the whole run."""
    low, high = cfg.train.learning_rate_min, cfg.train.learning_rate_max
    progress = server_round / cfg.num_server_rounds
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))


def lora_config(cfg: flowertune.Settings) -> Any:
    """Return the LoRA adapter's shape (Hu et al., 2021): rank, scale, dropout, modules."""
    # Imported here, since it takes seconds: Flower's Deployment Engine starts a process for
    # every message, and most of what a client answers needs no model.
    from peft import LoraConfig

    return LoraConfig(
        r=cfg.model.lora.peft_lora_r,
        lora_alpha=cfg.model.lora.peft_lora_alpha,  # type: ignore
        lora_dropout=cfg.model.lora.peft_lora_dropout,
        target_modules=flowertune.target_modules(cfg),
        task_type="CAUSAL_LM",
        **flowertune.lora_choices(cfg),  # DoRA, rsLoRA, biases, patterns: nothing by default
    )


def load_tokenizer(cfg: flowertune.Settings) -> Any:
    """Return the base model's tokenizer."""
    return flowertune.load_tokenizer(cfg)


def load_model(cfg: flowertune.Settings) -> Any:
    """Return the base model, quantized as the settings say, with the adapter on it."""
    from peft import get_peft_model

    return get_peft_model(flowertune.load_base_model(cfg), lora_config(cfg))
