"""The adapter's weights: read without torch, bound to the run's last state, and sketched."""

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowertune.base.untrusted import UnusableFile, open_untrusted, strict_json
from submissions.archive import WEIGHTS_BYTES

_HEADER = 4 * 2**20
_TENSORS = 20_000
_PIECE = 2**20  # values at a time
_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_METADATA = {"format": "pt"}
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a safetensors file: its type, shape, and place in bytes."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def values(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Weights:
    """A safetensors file that was looked through: its tensors in the order of their data."""

    path: Path
    tensors: Mapping[str, Tensor]
    start: int  # of the data

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """Yield a tensor's values in pieces, as float32; bfloat16 is widened."""
        tensor = self.tensors[name]
        width = _WIDTHS[tensor.dtype]
        with self.path.open("rb") as file:
            file.seek(self.start + tensor.begin)
            left = tensor.values
            while left:
                count = min(left, _PIECE)
                data = file.read(count * width)
                left -= count
                if tensor.dtype == "BF16":
                    raw = np.frombuffer(data, "<u2").astype("<u4") << 16
                    yield raw.view("<f4")
                else:
                    yield np.frombuffer(data, _TYPES[tensor.dtype]).astype(np.float32, copy=False)


def read_weights(path: Path) -> Weights:
    """Look through a safetensors file, without reading its values.

    Raises
    ------
    UnusableFile
        It is no safetensors file, or its tensors overlap, leave gaps or are of another type than
        an adapter's.
    """
    with open_untrusted(path, WEIGHTS_BYTES) as file:
        head = file.read(len(_POINTER))
        if head == _POINTER:
            raise UnusableFile("is a pointer of Git LFS, not the weights")
        size = file.seek(0, 2)
        length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
        if not 0 < length <= size - 8:
            raise UnusableFile("is no safetensors file, or cut off")
        if length > _HEADER:
            raise UnusableFile(f"lists its tensors in {length:,} bytes, more than {_HEADER:,}")
        file.seek(8)
        body = strict_json(file.read(length))
    if not isinstance(body, dict):
        raise UnusableFile("lists no tensors")
    about = body.pop("__metadata__", {})
    if about not in ({}, _METADATA):
        raise UnusableFile(f"has metadata beside {_METADATA}, which a run does not write")
    if not body:
        raise UnusableFile("holds no tensors")
    if len(body) > _TENSORS:
        raise UnusableFile(f"has {len(body):,} tensors, and at most {_TENSORS:,} are read")
    tensors = {name: _tensor(name, entry) for name, entry in body.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    end = 0
    for name, tensor in ordered.items():
        if tensor.begin != end:
            raise UnusableFile(f"has a gap or an overlap before {name!a}")
        end = tensor.end
    if 8 + length + end != size:
        raise UnusableFile(f"has {size - 8 - length - end:,} bytes behind its tensors")
    return Weights(path, ordered, 8 + length)


def _tensor(name: str, entry: Any) -> Tensor:
    fits = (
        isinstance(entry, dict)
        and entry.keys() == {"dtype", "shape", "data_offsets"}
        and isinstance(entry["dtype"], str)
        and entry["dtype"] in _WIDTHS
        and isinstance(entry["shape"], list)
        and len(entry["shape"]) <= 8
        and isinstance(entry["data_offsets"], list)
        and len(entry["data_offsets"]) == 2
        and all(type(n) is int and 0 <= n < 2**48 for n in entry["shape"] + entry["data_offsets"])
    )
    if not fits:
        raise UnusableFile(f"has an entry for {ascii(name)[:100]} that is no float tensor")
    begin, end = entry["data_offsets"]
    tensor = Tensor(entry["dtype"], tuple(entry["shape"]), begin, end)
    if end - begin != tensor.values * _WIDTHS[tensor.dtype]:
        raise UnusableFile(f"has {ascii(name)[:100]} with more or fewer bytes than its shape has")
    return tensor


def state_sha256(weights: Weights, exported: bool = False) -> str:
    """Return the sha256 of the file that a run's state holds with these very tensors.

    Where the run took its first adapter out of the base weights, factors were ``exported`` with
    twice the rank: the first half of each is what the state holds.

    A state's file says nothing beside its tensors, and both are written by the same library: so the
    digest in the chain's last record decides whether a checkpoint is what that round left.
    """
    axes = {name: rank_axis(name) if exported else None for name in weights.tensors}
    # The order of keys, and no white space, as safetensors writes them.
    body, end = {}, 0
    for name, tensor in weights.tensors.items():
        shape = list(tensor.shape)
        if (axis := axes[name]) is not None and axis < len(shape):
            shape[axis] //= 2
        begin, end = end, end + math.prod(shape) * _WIDTHS[tensor.dtype]
        body[name] = {"dtype": tensor.dtype, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    header += b" " * (-len(header) % 8)
    digest = hashlib.sha256(struct.pack("<Q", len(header)) + header)
    with weights.path.open("rb") as file:
        for name, tensor in weights.tensors.items():
            file.seek(weights.start + tensor.begin)
            left, axis = tensor.end - tensor.begin, axes[name]
            if axis == 1 and len(tensor.shape) > 1:
                data = np.frombuffer(file.read(left), np.uint8).reshape(max(1, tensor.shape[0]), -1)
                digest.update(data[:, : data.shape[1] // 2].tobytes())
                continue
            left = left // 2 if axis == 0 else left
            while left and (piece := file.read(min(left, 2**22))):
                left -= len(piece)
                digest.update(piece)
    return digest.hexdigest()


def halved(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what was trained, where factors are exported with twice the rank."""
    made = {}
    for name, shape in shapes.items():
        axis = rank_axis(name)
        made[name] = tuple(size // 2 if n == axis else size for n, size in enumerate(shape))
    return made


def rank_axis(name: str) -> int | None:
    """Return the axis of the rank in a factor; None for other tensors."""
    return 0 if ".lora_A." in name else 1 if ".lora_B." in name else None


def config_problems(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return what keeps tensors from being those of a LoRA configuration, a clause each."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    others = []
    for name, shape in shapes.items():
        module, _, rest = name.partition(".lora_")
        if rest:
            modules.setdefault(module, {})[rest.partition(".")[0]] = shape
        elif not _beside(config, name):
            others.append(name)
    if not modules:
        return ["hold no LoRA matrix"]
    if others:
        return [f"hold {ascii(others[0])[:100]}, which the configuration does not name"]
    pattern = config.get("rank_pattern") or {}
    wrong = []
    for module, found in sorted(modules.items()):
        if "A" not in found or "B" not in found:
            if not {"embedding_A", "embedding_B"} <= found.keys():
                wrong.append(f"have only one of the two matrices of {module}")
            continue
        ranks = {found["A"][0] if found["A"] else 0, found["B"][1] if len(found["B"]) > 1 else 0}
        allowed = {config["r"], *pattern.values()}
        if len(ranks) != 1 or not ranks <= allowed:
            wrong.append(
                f"have the ranks {sorted(ranks)} in {module}, and the configuration has "
                f"{sorted(allowed)}"
            )
        magnitude = "magnitude_vector" in found
        if magnitude != bool(config.get("use_dora")):
            wrong.append(f"{'have' if magnitude else 'lack'} DoRA's magnitudes in {module}")
    targets = config.get("target_modules")
    if isinstance(targets, list):
        ends = {module.rpartition(".")[2] for module in modules}
        named = {str(target).rpartition(".")[2] for target in targets}
        if not ends <= named:
            wrong.append(
                f"are for modules that the configuration does not name: {sorted(ends - named)}"
            )
        if missing := sorted(named - ends):
            wrong.append(f"lack the modules {missing}")
    return wrong


def _beside(config: Mapping[str, Any], name: str) -> bool:
    """Whether a configuration names a tensor that is no factor of LoRA."""
    saved = config.get("modules_to_save") or []
    return (
        any(str(module) in name.split(".") for module in saved)
        or config.get("trainable_token_indices") is not None
        or (config.get("bias", "none") != "none" and name.endswith(".bias"))
    )


@dataclass(frozen=True)
class Values:
    """What the values of an adapter are like.

    Attributes
    ----------
    finite
        Whether all are.
    largest
        The largest magnitude.
    still
        Whether every second factor (B) is zero: the adapter changes nothing.
    sketch
        See ``similarity``: a random projection of the second factors.
    """

    finite: bool
    largest: float
    still: bool
    sketch: np.ndarray


WIDTH = 4096


def look(weights: Weights) -> Values:
    """Read all values once.

    The sketch adds up rows of ``WIDTH`` values, each with a sign that depends on the tensor's name
    and the row: the cosine of two sketches is about that of the two adapters. First factors (A) are
    left out, since they stay close to where a seed put them.
    """
    finite, largest, moved = True, 0.0, False
    sketch = np.zeros(WIDTH, np.float64)
    for name in weights.tensors:
        second = ".lora_A" not in name and "lora_embedding_A" not in name
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        signs = np.random.default_rng(seed)
        for piece in weights.pieces(name):
            top = float(np.abs(piece).max(initial=0.0))
            if not math.isfinite(top):
                return Values(False, top, False, sketch)
            largest = max(largest, top)
            if not second:
                continue
            moved = moved or top > 0
            rows = -(-len(piece) // WIDTH)
            sign = (signs.integers(0, 2, rows) * 2 - 1).astype(np.float32)
            whole = len(piece) // WIDTH * WIDTH
            if whole:
                sketch += sign[: whole // WIDTH] @ piece[:whole].reshape(-1, WIDTH)
            if whole < len(piece):
                sketch[: len(piece) - whole] += sign[-1] * piece[whole:]
    return Values(finite, largest, not moved, sketch.astype(np.float32))
