"""Kinds of values as safetensors names them, and how one kind becomes another."""

import numpy as np

from flowertune.base.errors import UserError

SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
# The names that the settings use.
OF_SETTING = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def size_of(dtype: str, name: str) -> int:
    """Return the bytes of one value.

    Raises
    ------
    UserError
        If values of this kind cannot be averaged; ``name`` is the tensor's.
    """
    if dtype not in SIZES:
        raise UserError(
            f"tensor {name!r} holds {dtype} values, which cannot be averaged; use a checkpoint "
            f"of {', '.join(FLOATS)} (model.name)."
        )
    return SIZES[dtype]


def to_float32(data: bytes, dtype: str) -> np.ndarray:
    """Return 16- or 32-bit values as float32; nothing is lost."""
    if dtype == "BF16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(data, _NUMPY[dtype]).astype(np.float32, copy=False)


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """Return float32 values rounded to bfloat16 (to nearest, ties to even), as uint16."""
    bits = values.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    # Rounding must not carry a NaN over into an infinity.
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def convert(data: bytes, dtype: str, wanted: str, name: str) -> bytes:
    """Return values in another kind, rounded to nearest; integers and equal kinds stay.

    Raises
    ------
    UserError
        If a finite value of tensor ``name`` is too large for the wanted kind.
    """
    if dtype == wanted or dtype not in FLOATS:
        return data
    values: np.ndarray = (
        np.frombuffer(data, np.float64) if dtype == "F64" else to_float32(data, dtype)
    )
    with np.errstate(over="ignore"):
        if wanted == "BF16":
            bits = bfloat16_bits(values.astype(np.float32))
            fits = np.isfinite(values) <= ((bits & 0x7F80) != 0x7F80)
            result: np.ndarray = bits
        else:
            result = values.astype(_NUMPY[wanted])
            fits = np.isfinite(values) <= np.isfinite(result)
    if not fits.all():
        raise UserError(
            f"tensor {name!r} holds values that are too large for {wanted}; set model.dtype to "
            "'bfloat16', 'float32' or 'auto' (in [tool.flwr.app.config] of pyproject.toml)."
        )
    return result.tobytes()
