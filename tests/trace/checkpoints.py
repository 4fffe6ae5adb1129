"""Models of real size whose weights are a hole in a file."""

import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.tiny import save_tiny_llama

_TYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
QWEN = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}


def write(folder: Path, config: dict[str, Any], layers: int | None = None) -> Path:
    """Write a model's folder: a config, a small tokenizer, and weights that take no room.

    Parameters
    ----------
    config : dict[str, Any]
        The values of its config, ``model_type`` among them.
    layers : int, optional
        How many layers it has; as many as the config says, if not given.
    """
    save_tiny_llama(folder)
    values = dict(config)
    if layers is not None:
        values["num_hidden_layers"] = layers
    made = AutoConfig.for_model(values.pop("model_type"), **values)
    made.dtype = "bfloat16"
    (folder / "generation_config.json").unlink(missing_ok=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    made.architectures = [type(model).__name__]
    made.save_pretrained(folder)
    _write_hole(folder / "model.safetensors", model)
    return folder


def _write_hole(file: Path, model: Any) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    tied = tied if model.config.tie_word_embeddings else set()
    for name, parameter in model.named_parameters():
        if name in tied:
            continue
        start, end = end, end + parameter.numel() * 2
        header[name] = {
            "dtype": "BF16", "shape": list(parameter.shape), "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(struct.pack("<Q", len(text)) + text)
        opened.truncate(8 + len(text) + end)


class _Slice:
    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry = entry

    def get_shape(self) -> list[int]:
        return self.entry["shape"]

    def get_dtype(self) -> str:
        return self.entry["dtype"]

    def __getitem__(self, key: Any) -> torch.Tensor:
        return torch.empty(self.entry["shape"], dtype=torch.bfloat16)


class _Holes:
    """What ``safetensors.safe_open`` gives, of fake tensors."""

    def __init__(self, file: str, *_: Any, **__: Any) -> None:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            self.header = json.loads(opened.read(length))
        self.header.pop("__metadata__")

    def __enter__(self) -> "_Holes":
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def metadata(self) -> dict[str, str]:
        return {"format": "pt"}

    def keys(self) -> list[str]:
        return list(self.header)

    def get_slice(self, name: str) -> _Slice:
        return _Slice(self.header[name])


@contextmanager
def holes() -> Iterator[None]:
    """Within this context the weights of a folder that ``write`` made are read as fake tensors."""
    with (
        patch("transformers.modeling_utils.safe_open", _Holes),
        # It asks for all memory at once, to be given back before it is used.
        patch("transformers.modeling_utils.caching_allocator_warmup", lambda *_: None),
        patch.dict("os.environ", HF_DEACTIVATE_ASYNC_LOAD="1"),
    ):
        yield


def remove(folder: Path) -> None:
    """Remove a model's folder."""
    shutil.rmtree(folder, ignore_errors=True)
