"""Base model, tokenizer and adapter, loaded as the official scorers load them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError

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


def is_folder(name: str) -> bool:
    """Whether a model name means a folder of this machine; any other name is a hub id."""
    return name.startswith(("/", "./", "../", "~")) or Path(name).is_dir()


def default_device() -> str:
    """ "cuda" where there is one, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def tokenizer(choice: ModelChoice) -> Any:
    """The base model's tokenizer (never the adapter's), with a padding token.

    Also checks that the base model is there, which costs no more than its configuration file.

    Raises:
        EvaluationError: there is no such model, or the hub cannot be reached.
    """
    from transformers import AutoConfig, AutoTokenizer

    source = _source(choice)
    try:
        AutoConfig.from_pretrained(**source)
        loaded = AutoTokenizer.from_pretrained(**source)
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(_unreadable(choice.base, error)) from None
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
        EvaluationError: weights cannot be read, do not fit together, or bitsandbytes is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, choice.dtype)
    options: dict[str, Any] = {"dtype": dtype, "device_map": {"": choice.device}}
    if choice.quantization:
        _need_bitsandbytes(choice.quantization)
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=choice.quantization == 4,
            load_in_8bit=choice.quantization == 8,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(**_source(choice), **options)
    except (OSError, ValueError) as error:
        raise EvaluationError(_unreadable(choice.base, error)) from None
    if choice.adapter is not None:
        from peft import PeftModel

        try:
            model = PeftModel.from_pretrained(model, str(choice.adapter))
        except (OSError, RuntimeError, ValueError) as error:
            raise EvaluationError(
                f"the adapter in {choice.adapter} does not fit the base model {choice.base} "
                f"({_first_line(error)}): name the model it was trained on with --model"
            ) from None
    return model.eval()


@contextmanager
def as_model(model: Any, name: str, merge: bool = False) -> Iterator[None]:
    """Within this context a loaded model answers as "base" or as "checkpoint".

    With `merge`, "checkpoint" merges the adapter for good, so "base" has to come first.
    """
    if name == "base" and hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    if name == "checkpoint" and merge:
        # The layers are replaced in place; the returned model shares them.
        model.merge_and_unload()
    yield


def _source(choice: ModelChoice) -> dict[str, Any]:
    name = choice.base
    if is_folder(name):
        folder = Path(name).expanduser()
        if not (folder / "config.json").is_file():
            raise EvaluationError(
                f"the base model folder {name} is not there or has no config.json: "
                "say with --model where the model is, as a folder or a hub id"
            )
        return {
            "pretrained_model_name_or_path": str(folder),
            "trust_remote_code": choice.trust_remote_code,
        }
    return {
        "pretrained_model_name_or_path": name,
        "revision": choice.revision or "main",
        "trust_remote_code": choice.trust_remote_code,
    }


def _unreadable(base: str, error: Exception) -> str:
    if is_folder(base):
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


def _need_bitsandbytes(quantization: int) -> None:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise EvaluationError(
            f"--quantization {quantization} needs the package bitsandbytes: install it, or pass "
            "--quantization 0"
        ) from None
