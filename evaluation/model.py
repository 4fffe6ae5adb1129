"""Base model, tokenizer and adapter, loaded as the official scorers load them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.models.quantized import Quantization, loaded
from flowertune.models.resolve import folder_of, resolve_model
from flowertune.models.source import Source

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelChoice:
    """What to load.

    Attributes:
        base: hub id or folder.
        revision: of the base model, None for its default branch.
        adapter: PEFT folder, or None for the base model alone.
        quantization: 4 (fp4), 8 (LLM.int8) or 0 (none).
        dtype: of the weights that are not quantized and of the computation.
        device: "cuda", "cpu", or another name torch knows.
        adapter_named: what an error calls the adapter's folder, "" for its own name.
        merge: whether the adapter is merged into the weights.
        trust_remote_code: whether the base model may bring Python of its own.
        dequantize: whether 4-bit weights are expanded once they are loaded: "on", "off", or "auto"
            for GPUs with the memory for it.
    """

    base: str
    revision: str | None
    adapter: Path | None
    quantization: int
    dtype: str
    device: str
    adapter_named: str = ""
    merge: bool = False
    trust_remote_code: bool = False
    dequantize: str = "off"


def default_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    # Late: torch takes seconds to import, and a request that is refused need not wait for it.
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> None:
    """Refuse a device that torch does not know here, or that computes nothing.

    Raises:
        UserError: names the device and those there are.
    """
    # Late, as torch above.
    import torch

    try:
        wanted = torch.device(name)
        torch.zeros(1, device=wanted).item()
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"--device {name} cannot compute here ({one_line(str(error), 80)}): give cpu, or the "
            f"name of a GPU, of which there are {torch.cuda.device_count()}"
        ) from None


def config(choice: ModelChoice) -> Any:
    """Return the base model's configuration.

    Raises:
        UserError: there is no such model, or its configuration is damaged.
    """
    # Late, as torch above.
    from flowertune.models.config import read_config

    return read_config(source(choice))


def quantization(choice: ModelChoice) -> Quantization | None:
    """Return how the base model's weights are quantized once they are loaded; None: not at all.

    Raises:
        UserError: the model comes quantized, and otherwise than the choice says.
    """
    return loaded(source(choice), config(choice), choice.quantization)


def generation_config(choice: ModelChoice) -> Any:
    """Return what the base model's files say about generation; the defaults where they do not.

    Raises:
        UserError: there is no such model, or what they say is damaged.
    """
    # Late, as torch above.
    from flowertune.models.config import read_generation_config

    return read_generation_config(source(choice), config(choice))


def tokenizer(choice: ModelChoice) -> Any:
    """Return the base model's tokenizer (never the adapter's), with a padding token.

    Raises:
        UserError: there is no such model, or its tokenizer cannot be read.
    """
    # Late, as torch above.
    from flowertune.models.tokenizer import read_tokenizer

    return read_tokenizer(source(choice), config(choice))


def load(choice: ModelChoice) -> Any:
    """Load the base model and put the adapter on it, unmerged, in eval mode.

    Raises:
        UserError: weights cannot be read, do not fit together, or bitsandbytes is missing.
    """
    return adapted(load_base(choice), choice)


def load_base(choice: ModelChoice) -> Any:
    """Load the base model, in eval mode.

    Raises:
        UserError: weights cannot be read, do not fit together, or bitsandbytes is missing.
    """
    # Late, as torch above.
    from evaluation import dequantized
    from flowertune.models.loader import pretrained

    model = pretrained(
        source(choice),
        config(choice),
        quantization=choice.quantization,
        dtype=choice.dtype,
        device_map={"": choice.device},
    ).eval()
    # Merging rounds to 4 bits again, which expanded weights would leave out.
    if not choice.merge and dequantized.wanted(choice.dequantize, model):
        dequantized.expand(model)
    return model


def adapted(model: Any, choice: ModelChoice) -> Any:
    """Return a base model with the adapter on it, unmerged, in eval mode; itself without one.

    Raises:
        UserError: the adapter cannot be read or does not fit the model.
    """
    # Late, as torch above.
    from flowertune.models.loader import with_adapter

    if choice.adapter is None:
        return model
    return with_adapter(model, choice.adapter, choice.adapter_named).eval()


@contextmanager
def as_model(model: Any, name: str, merge: bool = False) -> Iterator[None]:
    """Within this context a loaded model answers as "base" or as "checkpoint".

    With `merge`, "checkpoint" merges the adapter for good, so "base" must come first.
    """
    if name == "base" and hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    if name == "checkpoint" and merge:
        # The layers are replaced in place; the returned model shares them.
        model.merge_and_unload()
    yield


def source(choice: ModelChoice) -> Source:
    """Return where the base model is.

    Raises:
        UserError: there is no such model.
    """
    folder = folder_of(choice.base)
    name = str(folder.absolute()) if folder else choice.base
    path = resolve_model(name, choice.revision or "main", Path(), named="the base model")
    return Source(
        path,
        choice.revision or "main",
        choice.trust_remote_code,
        f"the base model is {choice.base}",
        "name another with --model",
        "--quantization",
    )
