"""The least bytes of a message with an adapter, from its tensors' shapes and the transport."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO

import numpy as np

RECORD = "arrays"
_SCALES, _BLOCK = ".scales", 64  # as comms.codec has them
_A, _B = ".lora_A", ".lora_B"
_RANKS = re.compile(r"ranks\s*=\s*(\d{1,6}(?:/\d{1,6})*)")
Shapes = Mapping[str, tuple[int, ...]]
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


def trained(shapes: Shapes, method: str, options: str, server_round: int) -> tuple[Shapes, Shapes]:
    """Return the tensors that a client is sent at least, and replies with.

    Parameters
    ----------
    shapes
        Of the adapter's tensors, by name.
    method, options
        ``strategy.name`` and ``strategy.options``; a method of an app's own sends what it likes.
    """
    without = {factor: {n: s for n, s in shapes.items() if factor not in n} for factor in (_A, _B)}
    if method == "ffa-lora":  # A is drawn by everybody, and stays
        return without[_A], without[_A]
    if method == "fedsvd":  # A is the server's to change
        return shapes, without[_A]
    if method == "rolora":  # B in odd rounds, A in even ones
        return shapes, without[_A] if server_round % 2 else without[_B]
    if method == "flexlora" and (found := _RANKS.search(options)):
        least = min(int(rank) for rank in found[1].split("/"))
        cut = {name: _cut(name, shape, least) for name, shape in shapes.items()}
        return cut, cut
    return shapes, shapes


def _cut(name: str, shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    if _A in name:
        return min(rank, shape[0]), *shape[1:]
    return (shape[0], min(rank, shape[1]), *shape[2:]) if _B in name else shape


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
