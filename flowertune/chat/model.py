"""Load a base model and put an adapter on it, for answering."""

from dataclasses import dataclass
from typing import Any

from flowertune.base.errors import UserError
from flowertune.chat.checkpoint import Choice

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """Where a model is loaded, and how: device, bits of its weights (0: all of them), dtype."""

    device: str
    quantization: int
    dtype: str


def precision(device: str, quantization: int | None, dtype: str, choice: Choice) -> Precision:
    """Return what "auto" and None stand for on this machine.

    That is a GPU where there is one, quantized as the checkpoint was trained; else the CPU with
    all bits. The dtype is bfloat16 on a GPU that has it, float16 on one that has not, float32 on
    the CPU.

    Raises
    ------
    UserError
        If a device is asked for that is not there.
    """
    import torch

    gpu = torch.cuda.is_available()
    name = ("cuda" if gpu else "cpu") if device == "auto" else device
    try:
        kind, index = torch.device(name).type, torch.device(name).index or 0
    except RuntimeError:
        raise UserError(f"--device is {device!r}; give cpu, cuda, cuda:1 or the like.") from None
    if kind == "cuda" and not (gpu and index < torch.cuda.device_count()):
        raise UserError(
            f"--device is {device!r}, but this machine has "
            f"{torch.cuda.device_count() if gpu else 0} GPUs that torch can use; use --device cpu."
        )
    if quantization is None:
        trained = choice.manifest.get("settings", {}).get("model.quantization", 0)
        quantization = trained if kind == "cuda" and trained in (4, 8) else 0
    if dtype == "auto":
        fast = kind == "cuda" and torch.cuda.is_bf16_supported()
        dtype = "bfloat16" if fast else "float16" if kind == "cuda" else "float32"
    return Precision(name, quantization, dtype)


def load(choice: Choice, how: Precision, trust_remote_code: bool) -> tuple[Any, Any]:
    """Return the tokenizer and the model, ready to answer.

    Raises
    ------
    UserError
        If the files cannot be read, or the adapter does not fit the base model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    hub: dict[str, Any] = {"revision": choice.revision, "trust_remote_code": trust_remote_code}
    dtype, quantization = getattr(torch, how.dtype), None
    if how.quantization:
        quantization = BitsAndBytesConfig(
            load_in_4bit=how.quantization == 4,
            load_in_8bit=how.quantization == 8,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(choice.base, **hub)
        model: Any = AutoModelForCausalLM.from_pretrained(
            choice.base,
            dtype=dtype,
            quantization_config=quantization,
            device_map={"": how.device},
            **hub,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"The model {choice.base} cannot be loaded: {_line(error)}") from error
    if choice.adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(choice.adapter))
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"The adapter in {choice.adapter} does not fit the model {choice.base} "
                f"({_line(error)}); name the model that it was trained on with --model."
            ) from error
    return tokenizer, model.eval()


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} …"
