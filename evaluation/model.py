"""Base model, tokenizer and adapter, loaded as the official scorers load them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.models.resolve import folder_of

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
        merge: whether the adapter is merged into the weights.
        trust_remote_code: whether the base model may bring Python of its own.
    """

    base: str
    revision: str | None
    adapter: Path | None
    quantization: int
    dtype: str
    device: str
    merge: bool = False
    trust_remote_code: bool = False


def default_device() -> str:
    """Return "cuda" where there is a GPU, else "cpu"."""
    # Late: torch takes seconds to import, and a request that is refused need not wait for it.
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def tokenizer(choice: ModelChoice) -> Any:
    """Return the base model's tokenizer (never the adapter's), with a padding token.

    Also checks that the base model is there, which costs no more than its configuration file.

    Raises:
        UserError: there is no such model, or the hub cannot be reached.
    """
    # Late, as torch above.
    from transformers import AutoConfig, AutoTokenizer

    source, options = _source(choice)
    try:
        AutoConfig.from_pretrained(source, **options)
        loaded = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(_unreadable(choice.base, error)) from None
    if loaded.pad_token_id is None:
        # Padding is masked wherever it is used, so any token will do.
        token = (
            loaded.eos_token if loaded.eos_token is not None else loaded.convert_ids_to_tokens(0)
        )
        loaded.pad_token = token
    return loaded


def load(choice: ModelChoice) -> Any:
    """Load the base model and put the adapter on it, unmerged, in eval mode.

    Raises:
        UserError: weights cannot be read, do not fit together, or bitsandbytes is missing.
    """
    # Late, as torch above.
    from flowertune.models.loader import pretrained, with_adapter

    source, options = _source(choice)
    try:
        model = pretrained(
            source,
            quantization=choice.quantization,
            dtype=choice.dtype,
            device_map={"": choice.device},
            **options,
        )
    except (ImportError, OSError, ValueError) as error:
        if isinstance(error, ImportError) and error.name == "bitsandbytes":
            raise UserError(
                f"--quantization {choice.quantization} needs the package bitsandbytes: install "
                "it, or pass --quantization 0"
            ) from None
        raise UserError(_unreadable(choice.base, error)) from None
    if choice.adapter is not None:
        try:
            model = with_adapter(model, str(choice.adapter))
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"the adapter in {choice.adapter} does not fit the base model {choice.base} "
                f"({_first_line(error)}): name the model it was trained on with --model"
            ) from None
    return model.eval()


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


def _source(choice: ModelChoice) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = {"trust_remote_code": choice.trust_remote_code}
    folder = folder_of(choice.base)
    if folder is None:
        return choice.base, {**options, "revision": choice.revision or "main"}
    if not (folder / "config.json").is_file():
        raise UserError(
            f"the base model folder {choice.base} is not there or has no config.json: "
            "say with --model where the model is, as a folder or a hub id"
        )
    return str(folder), options


def _unreadable(base: str, error: Exception) -> str:
    if folder_of(base):
        return (
            f"the base model in {base} cannot be read ({_first_line(error)}): "
            "choose another with --model"
        )
    return (
        f"the base model {base} cannot be read from the Hugging Face hub ({_first_line(error)}): "
        "check the name and the "
        "network, log in with `hf auth login` if it is gated, or give a folder with --model"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".:") if lines else type(error).__name__
