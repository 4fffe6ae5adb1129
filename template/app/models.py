"""The base model, its LoRA adapter, and the learning rate over the rounds."""

import math
from typing import Any

import torch
from flowertune.base.seeds import key_of
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.utils import get_peft_model_state_dict
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from flowertune.base.errors import UserError
from flowertune.models.resolve import resolve_model


def learning_rate(cfg: dict[str, Any], server_round: int) -> float:
    """Return the rate of one round: it falls along a cosine from max to min (Loshchilov and
    Hutter, SGDR, 2017), once over the whole run."""
    low, high = cfg["train.learning-rate-min"], cfg["train.learning-rate-max"]
    progress = server_round / cfg["num-server-rounds"]
    return low + 0.5 * (high - low) * (1 + math.cos(math.pi * progress))


def _hub_arguments(cfg: dict[str, Any]) -> dict[str, Any]:
    return {
        "revision": cfg["model.revision"],
        "trust_remote_code": cfg["model.trust-remote-code"],
    }


def load_tokenizer(cfg: dict[str, Any]) -> Any:
    """Return the base model's tokenizer; where it has no padding token, padding is its EOS."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(cfg), **_hub_arguments(cfg))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def lora_config(cfg: dict[str, Any]) -> LoraConfig:
    """Return the LoRA adapter's shape (Hu et al., 2021): rank, scale, dropout, modules."""
    modules: str | list[str] | None = cfg["model.lora.target-modules"]
    if modules == "auto":
        modules = None
    elif modules != "all-linear":
        modules = [name.strip() for name in str(modules).split(",")]
    return LoraConfig(
        r=cfg["model.lora.peft-lora-r"],
        lora_alpha=cfg["model.lora.peft-lora-alpha"],
        lora_dropout=cfg["model.lora.peft-lora-dropout"],
        target_modules=modules,
        task_type="CAUSAL_LM",
    )


def compute_dtype(cfg: dict[str, Any]) -> torch.dtype:
    """Return ``model.dtype``; "auto" is bfloat16 on a GPU that has it and float32 elsewhere."""
    if cfg["model.dtype"] != "auto":
        return getattr(torch, cfg["model.dtype"])
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def device_map(cfg: dict[str, Any]) -> dict[str, Any] | None:
    """Return where the model goes: ``model.device-map``; "auto" is the GPU where there is one."""
    if cfg["model.device-map"] != "auto":
        return {"": cfg["model.device-map"]}
    return {"": 0} if torch.cuda.is_available() else None


def load_model(cfg: dict[str, Any]) -> PeftModel:
    """Return the base model with a LoRA adapter on it, on the GPU where there is one."""
    bits, dtype = cfg["model.quantization"], compute_dtype(cfg)
    quantization = None
    if bits:
        quantization = BitsAndBytesConfig(
            load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=dtype
        )
    model = AutoModelForCausalLM.from_pretrained(
        resolve_model(cfg),
        quantization_config=quantization,
        dtype=dtype,
        device_map=device_map(cfg),
        **_hub_arguments(cfg),
    )
    checkpointing = cfg["model.gradient-checkpointing"]
    reentrant = {"use_reentrant": False}
    if bits:
        model = prepare_model_for_kbit_training(model, checkpointing, reentrant)
    elif checkpointing:
        model.gradient_checkpointing_enable(reentrant)
    return get_peft_model(model, lora_config(cfg))


def initial_adapter(cfg: dict[str, Any]) -> tuple[dict[str, torch.Tensor], PeftConfig]:
    """Return the adapter that round 1 starts from, and its config, without base weights.

    Names and shapes come from the architecture on the meta device. A is drawn as LoRA draws
    it (Kaiming uniform), from ``seed`` and the tensor's name; B is zero, so that the adapter
    changes nothing at first. All tensors are float32 on the CPU.
    """
    path = resolve_model(cfg)
    config = AutoConfig.from_pretrained(path, **_hub_arguments(cfg))
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(
            config, trust_remote_code=cfg["model.trust-remote-code"]
        )
        skeleton = get_peft_model(skeleton, lora_config(cfg))
    adapter = {}
    for name, shape in get_peft_model_state_dict(skeleton).items():
        if "base_layer" in name or "lora_embedding" in name:
            raise UserError(
                f"model.lora.target-modules is {cfg['model.lora.target-modules']!r}, which adapts "
                f"an embedding or the output head ({name}); name layers between them."
            )
        tensor = torch.zeros(shape.shape)
        if "lora_A" in name:
            generator = torch.Generator().manual_seed(key_of("adapter", cfg["seed"], name))
            torch.nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=generator)
        adapter[name] = tensor
    peft_config = skeleton.peft_config["default"]
    peft_config.base_model_name_or_path = path
    return adapter, peft_config
