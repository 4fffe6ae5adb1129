"""The least bytes of a message with an adapter, from its tensors' shapes and the transport."""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO

import numpy as np

RECORD = "arrays"
_SCALES, _BLOCK = ".scales", 64  # as comms.codec has them
_NUMPY = {"float32": "<f4", "float16": "<f2", "int8": "|i1"}


def adapter_bytes(shapes: Mapping[str, tuple[int, ...]], transport: str) -> int:
    """Return the bytes of a message's arrays: names, headers and values; nothing beside them.

    Parameters
    ----------
    shapes
        Of the adapter's tensors, by name.
    transport
        float32, float16, bfloat16 or int8.
    """
    arrays = (_array(name, shape, transport) for name, shape in shapes.items())
    return len(RECORD) + sum(arrays)


def value_bytes(shapes: Iterable[tuple[int, ...]], transport: str) -> int:
    """Return the bytes of the values alone, which travel in buckets."""
    width = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}[transport]
    return width * sum(math.prod(shape) for shape in shapes)


def _array(name: str, shape: tuple[int, ...], transport: str) -> int:
    named, count = len(name.encode()), math.prod(shape)
    if transport == "bfloat16":  # NumPy has none, so its bytes go without a header
        return named + 2 * count
    kind = _NUMPY[transport]
    nbytes = named + _header(kind, shape) + np.dtype(kind).itemsize * count
    if transport == "int8":
        blocks = -(-count // _BLOCK)
        nbytes += named + len(_SCALES) + _header("<f4", (blocks,)) + 4 * blocks
    return nbytes


@lru_cache(maxsize=4096)
def _header(kind: str, shape: tuple[int, ...]) -> int:
    """Return the bytes that ``np.save`` writes before the values."""
    file = BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": kind, "fortran_order": False, "shape": shape}
    )
    return file.tell()
