"""Load a base model with an adapter on it, ready to generate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.chat.checkpoint import Choice
from flowertune.models.quantized import Quantization
from flowertune.models.source import Source

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Precision:
    """Where and how a model is loaded: device, quantization (4 or 8 bits; 0: none), dtype."""

    device: str
    quantization: int
    dtype: str


def precision(
    device: str,
    quantization: int | None,
    dtype: str,
    choice: Choice,
    own: Quantization | None = None,
) -> Precision:
    """Return what "auto" and None stand for on this machine.

    That is a GPU where there is one, with the quantization that the checkpoint was trained with;
    else the CPU without quantization. A base model that comes quantized (``own``) stays so. The
    dtype is bfloat16 on a GPU that supports it, float16 on one that does not, float32 on the CPU.

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
    if quantization is None and own is not None:
        quantization = own.bits or 0
    elif quantization is None:
        trained = choice.manifest.get("settings", {}).get("model.quantization", 0)
        quantization = trained if kind == "cuda" and trained in (4, 8) else 0
    if dtype == "auto":
        from flowertune.models.cuda import fast_dtype  # late: it imports torch

        dtype = str(fast_dtype()).removeprefix("torch.") if kind == "cuda" else "float32"
    return Precision(name, quantization, dtype)


def opened(choice: Choice, trust_remote_code: bool) -> tuple[Source, Any]:
    """Return the base model as ``load`` takes it, and its configuration.

    Raises
    ------
    UserError
        If the configuration cannot be used.
    """
    # Late, as above.
    from flowertune.models.config import read_config

    source = Source(
        choice.base,
        choice.revision,
        trust_remote_code,
        f"the base model is {choice.base}",
        "name another with --model",
        "--quantization",
    )
    return source, read_config(source)


def load(source: Source, config: Any, adapter: Path | None, how: Precision) -> tuple[Any, Any]:
    """Return the tokenizer and the model, ready to answer.

    Raises
    ------
    UserError
        If the files cannot be read, or the adapter does not fit the base model.
    """
    # Late, as above.
    from flowertune.models.loader import pretrained, with_adapter
    from flowertune.models.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(source, config)
    model = pretrained(
        source,
        config,
        quantization=how.quantization,
        dtype=how.dtype,
        device_map={"": how.device},
    )
    if adapter is not None:
        model = with_adapter(model, adapter)
    return tokenizer, model.eval()
