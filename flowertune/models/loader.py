"""The one loader of base models and their adapters: training, chat and scoring load through it."""

import inspect
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from flowertune.base.errors import UserError
from flowertune.base.progress_bars import without_remarks
from flowertune.base.text import is_utf8, one_line
from flowertune.config.settings import WHERE, Settings
from flowertune.models import quantized
from flowertune.models.checkpointing import checkpoints
from flowertune.models.config import read_config, read_generation_config, skeleton
from flowertune.models.cuda import fast_dtype, prepare
from flowertune.models.faster import make_faster
from flowertune.models.fit import bad_scale, misfit, unusable
from flowertune.models.resolve import resolve_model
from flowertune.models.source import Source
from flowertune.models.tokenizer import read_tokenizer
from flowertune.models.weights import problem_of

_ANOTHER = "name the model that it was trained on with --model"


def pretrained(
    source: Source,
    config: Any,
    *,
    quantization: int = 0,
    dtype: str | torch.dtype = "float32",
    device_map: dict[str, Any] | None = None,
) -> Any:
    """Return a causal language model, quantized where asked for or where it comes so.

    Parameters
    ----------
    config : PretrainedConfig
        Its configuration, as ``read_config`` gives it.
    quantization : int
        4 (bitsandbytes fp4), 8 (LLM.int8) or 0 (none); a model that comes quantized by
        bitsandbytes keeps its own type of as many bits.
    dtype : str | torch.dtype
        Of the weights that are not quantized, and of the computation.

    Raises
    ------
    UserError
        If its files are damaged or do not belong together, a package is missing, or the model
        comes quantized in another way.
    """
    # Late: transformers takes seconds to import, and a server needs it for shapes only.
    from transformers import AutoModelForCausalLM

    if source.folder:
        if problem := problem_of(source.folder):
            raise source.refusal(problem)
        # transformers goes on without one that is damaged.
        read_generation_config(source, config)
    prepare()
    compute = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    how = quantized.loaded(source, config, quantization)
    options: dict[str, Any] = {}
    if how and how.from_model:
        values = config.quantization_config
        values = dict(values if isinstance(values, dict) else values.to_dict())
        config.quantization_config = {**values, "bnb_4bit_compute_dtype": _name(compute)}
    elif how:
        options["quantization_config"] = _bitsandbytes(source, quantization, compute)
    try:
        with without_remarks():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.path,
                config=config,
                dtype=compute,
                device_map=device_map,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with the sizes
                **source.arguments,
                **options,
            )
    except Exception as error:  # it depends on the model's files, which may hold anything
        raise source.unusable("its weights", error) from error
    model, loading = loaded
    if other := sorted(loading["mismatched_keys"]):
        name, given, wanted = other[0]
        raise source.refusal(
            f"{name} has the shape {_shape(given)} in its files, and {_shape(wanted)} by its "
            "config.json"
        )
    if missing := sorted(loading["missing_keys"]):
        raise source.refusal(
            f"its files lack {len(missing):,} of its weights ({missing[0]}), which would be drawn "
            "at random"
        )
    return model


def _bitsandbytes(source: Source, bits: int, compute: torch.dtype) -> Any:
    # Late, as above.
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401  (needed for quantized models only)
    except ImportError as error:
        raise source.refusal(
            f"{source.bits} {bits} needs the package bitsandbytes, which cannot be imported "
            f"({one_line(error)})",
            f"install it, or set {source.bits} to 0",
        ) from error
    return BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_compute_dtype=compute
    )


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def with_adapter(model: Any, folder: Path | str, named: Path | str = "") -> Any:
    """Return a base model with the PEFT adapter of a folder on it, all of it.

    Parameters
    ----------
    named : Path or str, optional
        What an error calls the folder, where ``folder`` is a copy of another.

    Raises
    ------
    UserError
        If the folder holds no adapter, one that does not fit the model, holds more or less than
        its configuration describes or values that are not finite, or one that adds tokens to the
        prompt; or the folder's name is no text.
    """
    # Late, as transformers above.
    from peft import PeftConfig, PeftModel
    from peft.utils import get_peft_model_state_dict, load_peft_weights

    def refusal(problem: str, what_to_do: str = "give another checkpoint") -> UserError:
        problem = problem.replace(str(folder), str(named or folder))
        return UserError(
            f"the adapter in {named or folder} cannot be used: {problem}; {what_to_do}."
        )

    if not is_utf8(str(folder)):
        raise UserError(
            f"the adapter in {str(folder)!a} cannot be used: the name of its folder is no "
            "UTF-8 text; rename it."
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
        given = load_peft_weights(str(folder), device="cpu")
    except Exception as error:  # the files may hold anything
        raise refusal(f"its files cannot be read ({one_line(error)})") from error
    if config.is_prompt_learning:
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise refusal(
            f"{kind} adds tokens to every prompt, and only adapters that change "
            "layers (LoRA, IA3) are scored and asked"
        )
    if problem := unusable(given):
        raise refusal(problem)
    try:
        with warnings.catch_warnings():
            # It is said below, as an error.
            warnings.filterwarnings("ignore", "Found missing adapter keys")
            adapted = PeftModel.from_pretrained(model, str(folder), config=config)
    except Exception as error:  # as above
        raise refusal(f"it does not fit the base model ({_first_of(error)})", _ANOTHER) from error
    if problem := bad_scale(adapted):
        raise refusal(problem)
    if problem := misfit(get_peft_model_state_dict(adapted, save_embedding_layers=False), given):
        raise refusal(problem, _ANOTHER)
    return adapted


def _first_of(error: Exception) -> str:
    # PyTorch lists every tensor of another size; one of them says it.
    text = one_line(error, 2000).partition("size mismatch for ")
    return one_line(text[2].partition(". size mismatch")[0] if text[1] else text[0], 300)


def takes_logits_to_keep(model: Any) -> bool:
    """Whether a model can be asked for the logits of its last columns only."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def load_tokenizer(cfg: Settings) -> Any:
    """Return the base model's tokenizer; where it has no padding token, padding is its EOS.

    Raises
    ------
    UserError
        If the model or its tokenizer cannot be had, or it has no end-of-sequence token.
    """
    source = settings_source(cfg)
    tokenizer = read_tokenizer(source, read_config(source))
    if tokenizer.eos_token_id is None:
        raise source.refusal(
            "its tokenizer has no end-of-sequence token, with which training ends every answer",
            f"name it as eos_token in its tokenizer_config.json, or {source.cure}",
        )
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
    bits = cfg.model.quantization
    source = settings_source(cfg)
    config = read_config(source)
    model = pretrained(
        source,
        config,
        quantization=bits,
        dtype=compute_dtype(cfg),
        device_map=device_map(cfg),
    )
    # PEFT's own preparation would compute in float32 what is not quantized.
    model.requires_grad_(False)
    if checkpoints(cfg, lambda: skeleton(source, config), model.device):
        _checkpoint(model, bits)
    make_faster(cfg, model)
    return model


def _checkpoint(model: Any, bits: int) -> None:
    """Let layers be computed again in the backward pass."""
    # bitsandbytes' 8-bit layers hold on to their inputs in every forward pass that makes a graph.
    # The reentrant kind makes none, and wants a gradient of the first layer's input.
    reentrant = bits == 8
    if reentrant:
        model.enable_input_require_grads()
    # Newer releases of transformers 5 have it under another name, and warn of this one.
    newer = getattr(model, "activation_checkpointing_enable", None)
    (newer or model.gradient_checkpointing_enable)({"use_reentrant": reentrant})


def settings_source(cfg: Settings, weights: bool = True) -> Source:
    """Return the base model that the settings name.

    Parameters
    ----------
    weights : bool
        Whether its weights must be there; else its configuration is enough.

    Raises
    ------
    UserError
        If it cannot be had.
    """
    path = resolve_model(cfg.model.name, cfg.model.revision, cfg.app_dir, weights)
    return source_at(path, cfg)


def source_of(cfg: Settings) -> str:
    """Return what ``from_pretrained`` takes for the base model of the settings.

    Raises
    ------
    UserError
        If it cannot be had.
    """
    return settings_source(cfg).path


def quantization_of(cfg: Settings) -> quantized.Quantization | None:
    """Return how the weights of the settings' base model are quantized once they are loaded.

    Raises
    ------
    UserError
        If the model cannot be had, or comes quantized otherwise than the settings say.
    """
    source = settings_source(cfg)
    return quantized.loaded(source, read_config(source), cfg.model.quantization)


def source_at(path: str, cfg: Settings) -> Source:
    """Return the base model of the settings, which is at ``path``."""
    name, revision = cfg.model.name, cfg.model.revision
    at = "" if revision == "main" else f" at revision {revision!r}"
    return Source(
        path,
        revision,
        cfg.model.trust_remote_code,
        f"model.name is {name!r}{at}",
        f"name another model ({WHERE})",
    )


def compute_dtype(cfg: Settings) -> torch.dtype:
    """Return ``model.dtype``; "auto" is bfloat16 on a GPU that has it, else float16 there.

    On a CPU it is float32. The adapter is float32 always.
    """
    return fast_dtype() if cfg.model.dtype == "auto" else getattr(torch, cfg.model.dtype)


def device_map(cfg: Settings) -> dict[str, Any] | None:
    """Return where the model goes: ``model.device-map``; "auto" is the GPU where there is one."""
    if cfg.model.device_map != "auto":
        return {"": cfg.model.device_map}
    return {"": 0} if torch.cuda.is_available() else None
