"""The one loader of base models: training, chat and scoring load through it."""

import inspect
from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.config.settings import Settings
from flowertune.models.resolve import resolve_model


def pretrained(
    source: str,
    revision: str = "main",
    *,
    quantization: int = 0,
    dtype: str | torch.dtype = "float32",
    device_map: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """Return a causal language model as ``from_pretrained`` loads it, quantized where asked for.

    Parameters
    ----------
    source : str
        A folder, or a hub id.
    quantization : int
        4 (bitsandbytes fp4), 8 (LLM.int8) or 0 (none).
    dtype : str | torch.dtype
        Of the weights that are not quantized, and of the computation.

    Raises
    ------
    OSError, ValueError, ImportError
        As ``from_pretrained``; ImportError also where bitsandbytes is missing.
    """
    # Late: transformers takes seconds to import, and a server needs it for shapes only.
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    compute = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    config = None
    if quantization:
        # Late: it is needed for quantized models only.
        import bitsandbytes  # noqa: F401  (a clear ImportError before any weight is read)

        config = BitsAndBytesConfig(
            load_in_4bit=quantization == 4,
            load_in_8bit=quantization == 8,
            bnb_4bit_compute_dtype=compute,
        )
    return AutoModelForCausalLM.from_pretrained(
        source,
        revision=revision,
        quantization_config=config,
        dtype=compute,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
    )


def with_adapter(model: Any, folder: str) -> Any:
    """Return a base model with the PEFT adapter of a folder on it.

    Raises
    ------
    OSError, RuntimeError, ValueError
        If the folder holds no adapter, or one that does not fit.
    """
    # Late, as transformers above.
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder)


def takes_logits_to_keep(model: Any) -> bool:
    """Whether a model can be asked for the logits of its last columns only."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def load_tokenizer(cfg: Settings) -> Any:
    """Return the base model's tokenizer; where it has no padding token, padding is its EOS.

    Raises
    ------
    UserError
        If the model cannot be had.
    """
    # Late, as above.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source_of(cfg), **hub_arguments(cfg))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base_model(cfg: Settings) -> Any:
    """Return the base model of the settings, ready for an adapter to be trained on it.

    It is quantized as ``model.quantization`` says and on the GPU where there is one; with
    ``model.gradient-checkpointing`` it keeps less for the backward pass.

    Raises
    ------
    UserError
        If the model cannot be had.
    """
    # Late, as above.
    from peft import prepare_model_for_kbit_training

    bits, checkpointing = cfg.model.quantization, cfg.model.gradient_checkpointing
    model = pretrained(
        source_of(cfg),
        quantization=bits,
        dtype=compute_dtype(cfg),
        device_map=device_map(cfg),
        **hub_arguments(cfg),
    )
    reentrant = {"use_reentrant": False}
    if bits:
        return prepare_model_for_kbit_training(model, checkpointing, reentrant)
    if checkpointing:
        model.gradient_checkpointing_enable(reentrant)
    return model


def skeleton(cfg: Settings, config: Any = None) -> Any:
    """Return the base model's architecture on the meta device: names and shapes, no weights.

    Parameters
    ----------
    config : PretrainedConfig, optional
        The model's configuration, where it is known; ``model.name`` is not resolved then.

    Raises
    ------
    UserError
        If its configuration cannot be had.
    """
    # Late, as above.
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = config or AutoConfig.from_pretrained(source_of(cfg), **hub_arguments(cfg))
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.name is {cfg.model.name!r}, and its config.json cannot be used "
            f"({one_line(error)}); name another model."
        ) from error
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, trust_remote_code=cfg.model.trust_remote_code
        )


def source_of(cfg: Settings) -> str:
    """Return what ``from_pretrained`` takes for the base model of the settings."""
    return resolve_model(cfg.model.name, cfg.model.revision, cfg.app_dir)


def hub_arguments(cfg: Settings) -> dict[str, Any]:
    """Return which revision is loaded, and whether its own code may run."""
    return {"revision": cfg.model.revision, "trust_remote_code": cfg.model.trust_remote_code}


def compute_dtype(cfg: Settings) -> torch.dtype:
    """Return ``model.dtype``; "auto" is bfloat16 on a GPU that has it and float32 elsewhere."""
    if cfg.model.dtype != "auto":
        return getattr(torch, cfg.model.dtype)
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def device_map(cfg: Settings) -> dict[str, Any] | None:
    """Return where the model goes: ``model.device-map``; "auto" is the GPU where there is one."""
    if cfg.model.device_map != "auto":
        return {"": cfg.model.device_map}
    return {"": 0} if torch.cuda.is_available() else None
