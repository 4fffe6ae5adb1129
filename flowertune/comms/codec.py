"""Pack adapters into fewer bytes, and unpack them again.

float32 sends values as they are; float16 and bfloat16 round each value to the nearest one they
have; int8 sends one byte a value and a float32 scale for each block of 64 values, as in blockwise
quantization (Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2022), with evenly
spaced steps.
"""

import math
import warnings
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.common import Array
from flwr.common.constant import SType

BLOCK = 64
SCALES = ".scales"
_LONGEST_HEADER = 512  # in bytes, that is kept: a client may send any


def pack(tensors: Mapping[str, torch.Tensor], kind: str) -> ArrayRecord:
    """Return float32 tensors as they travel; int8 adds one array of scales per tensor."""
    if kind == "float32":
        return ArrayRecord({name: array_of(tensor) for name, tensor in tensors.items()})
    record = ArrayRecord()
    for name, tensor in tensors.items():
        if kind == "float16":
            record[name] = Array(tensor.to(torch.float16).numpy())
        elif kind == "bfloat16":
            # NumPy has no bfloat16, so the bytes go as they are.
            raw = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
            record[name] = Array("bfloat16", tuple(tensor.shape), "raw", raw)
        else:
            values, scales = quantize(tensor)
            record[name] = Array(values.numpy())
            record[name + SCALES] = Array(scales.numpy())
    return record


def array_of(tensor: torch.Tensor) -> Array:
    """Return what ``Array(tensor)`` does; an adapter's many small tensors have few shapes."""
    values = tensor.detach().cpu().contiguous().numpy()
    if values.dtype != np.float32:
        return Array(values)
    data = b"".join((_header(values.shape), values.reshape(-1).data))
    return Array("float32", values.shape, SType.NUMPY, data)


@lru_cache(maxsize=1024)
def _header(shape: tuple[int, ...]) -> bytes:
    """Return what ``np.save`` writes before float32 values of a shape."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def unpack(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Return the float32 tensors of a packed record; each array says itself how it was packed.

    Raises
    ------
    ValueError, KeyError
        If an array's bytes are not those of its dtype and shape, or scales are missing.
    """
    tensors = decode(record)
    return {
        name: tensor.clone() if record[name].dtype == "float32" else tensor
        for name, tensor in tensors.items()
    }


def decode(record: ArrayRecord) -> dict[str, torch.Tensor]:
    """Return what ``unpack`` does, which is not to be written to: float32 is not copied.

    Raises
    ------
    ValueError, KeyError
        If an array's bytes are not those of its dtype and shape, or scales are missing.
    """
    tensors = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given .* is not writable")
        for name, array in record.items():
            if name.endswith(SCALES):
                continue
            if array.dtype == "bfloat16":
                raw = torch.frombuffer(array.data, dtype=torch.bfloat16)
                tensors[name] = raw.reshape(tuple(array.shape)).float()
            elif array.dtype == "int8":
                values = torch.from_numpy(_numpy(array))
                scales = torch.from_numpy(_numpy(record[name + SCALES]))
                if scales.shape != (-(-values.numel() // BLOCK),):
                    raise ValueError(f"{name + SCALES!r} has shape {tuple(scales.shape)}")
                tensors[name] = dequantize(values, scales)
            else:
                tensors[name] = torch.from_numpy(_float32(_numpy(array)))
    return tensors


def _float32(values: np.ndarray) -> np.ndarray:
    # A header of an odd length leaves values where no processor likes to read them.
    there = values.flags.aligned and values.flags.c_contiguous
    return values.astype(np.float32, copy=not there)


def _numpy(array: Array) -> np.ndarray:
    """Return the values in an array's bytes, an npy file; they are not to be written to.

    ``np.load`` would open a zip file as well, and take memory for whatever shape a header names.
    """
    ends = 10 + int.from_bytes(array.data[8:10], "little")
    first = array.data[6:8] == b"\1\0" and ends <= _LONGEST_HEADER
    shape, fortran, dtype, start = _read(array.data[:ends]) if first else _read_any(array.data)
    if dtype.kind not in "biuf" or str(dtype) != array.dtype or shape != tuple(array.shape):
        raise ValueError(f"its bytes hold {dtype} {shape}, not {array.dtype} {tuple(array.shape)}")
    values = np.frombuffer(array.data, dtype, offset=start)
    return values.reshape(shape, order="F" if fortran else "C")


def _read_any(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, order and dtype of an npy file, and where its values begin."""
    file = BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = read[version](file)
    return shape, fortran, dtype, file.tell()


# NumPy parses a header as Python, which takes longer than to read a small tensor's values.
_read = lru_cache(maxsize=1024)(_read_any)


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether every value is finite: their sum is not where one of them is not."""
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())


def must_be_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Check what a client has trained.

    Raises
    ------
    FloatingPointError
        If a value is not finite; names its tensor.
    """
    for name, tensor in tensors.items():
        if not all_finite(tensor):
            raise FloatingPointError(f"{name!r} holds values that are not finite")


def quantize(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (int8 values in the tensor's shape, float32 scale of each block of 64 values)."""
    flat = tensor.float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK)).reshape(-1, BLOCK)
    scales = blocks.abs().amax(dim=1) / 127
    steps = torch.where(scales > 0, scales, torch.ones_like(scales))
    values = torch.round(blocks / steps[:, None]).clamp(-127, 127).to(torch.int8)
    return values.flatten()[: flat.numel()].reshape(tensor.shape), scales


def dequantize(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return the float32 tensor of ``quantize``'s result; off by half a step at most."""
    flat = values.float().flatten()
    if -flat.numel() % BLOCK:
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % BLOCK))
    flat.view(-1, BLOCK).mul_(scales[:, None])
    return flat[: values.numel()].reshape(values.shape)
