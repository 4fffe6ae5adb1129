"""Load a base model with an adapter on it, ready to generate."""

from dataclasses import dataclass
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.chat.checkpoint import Choice

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """Where and how a model is loaded: device, quantization (4 or 8 bits; 0: none), dtype."""

    device: str
    quantization: int
    dtype: str


def precision(device: str, quantization: int | None, dtype: str, choice: Choice) -> Precision:
    """Return what "auto" and None stand for on this machine.

    That is a GPU where there is one, with the quantization that the checkpoint was trained with;
    else the CPU without quantization. The dtype is bfloat16 on a GPU that supports it, float16 on
    one that does not, float32 on the CPU.

    Raises
    ------
    UserError
        If this machine has no such device.
    """
    # Late: it takes seconds to import, and wrong arguments are reported without it.
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
    # Late: torch and transformers take seconds to import, and wrong arguments are reported without.
    from transformers import AutoTokenizer

    from flowertune.models.loader import pretrained, with_adapter

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            choice.base, revision=choice.revision, trust_remote_code=trust_remote_code
        )
        model = pretrained(
            choice.base,
            choice.revision,
            quantization=how.quantization,
            dtype=how.dtype,
            device_map={"": how.device},
            trust_remote_code=trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"The model {choice.base} cannot be loaded: {one_line(error, 300)}"
        ) from error
    if choice.adapter is not None:
        try:
            model = with_adapter(model, str(choice.adapter))
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"The adapter in {choice.adapter} does not fit the model {choice.base} "
                f"({one_line(error, 300)}); name the model that it was trained on with --model."
            ) from error
    return tokenizer, model.eval()
