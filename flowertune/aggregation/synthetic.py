"""Weights that nobody trained: a function of (seed, client, tensor, row), for trying out sizes.

A row is a stretch of a client's pool of random bits, from a place and xor a key that are hashes of
(seed, client, tensor, row); a mask then makes each value finite. So any row can be made again on
its own, and a row in a wrong place, of a wrong tensor or of another client shows.
"""

import hashlib
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from flowertune.aggregation.dtypes import SIZES
from flowertune.aggregation.plan import Tensor
from flowertune.base.errors import UserError

POOL_BYTES = 2 * 2**20  # stays in a core's cache
_BLOCK_BYTES = 512 * 2**10
# Bits to keep and bits to set: signs are free, float16 is below 1 in size, the others between
# 2^-7 and 2, so that no sum overflows and float64 sums of 16-bit values are exact.
_MASKS = {
    "F16": (np.uint16, 0xBBFF, 0x0000),
    "BF16": (np.uint16, 0x83FF, 0x3C00),
    "F32": (np.uint32, 0x83FFFFFF, 0x3C000000),
}


@lru_cache(maxsize=2)
def _pool(seed: int, client: int) -> np.ndarray:
    pool = np.random.PCG64(np.random.SeedSequence([seed, client])).random_raw(POOL_BYTES // 8)
    pool.flags.writeable = False
    return pool


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Return well-spread 64-bit hashes of 64-bit numbers (SplitMix64, Steele et al., 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def synthetic_rows(seed: int, client: int, tensor: Tensor, row0: int, row1: int) -> bytes:
    """Return the bytes of rows ``row0`` to before ``row1`` of a client's tensor.

    Raises
    ------
    UserError
        If there are no synthetic values of this kind.
    """
    if tensor.dtype not in _MASKS:
        raise UserError(
            f"tensor {tensor.name!r} holds {tensor.dtype} values; model.weights='synthetic' "
            f"makes {', '.join(_MASKS)}: set model.dtype to one of them (in "
            "[tool.flwr.app.config] of pyproject.toml)."
        )
    kind, keep, fill = _MASKS[tensor.dtype]
    pool = _pool(seed, client).view(kind)
    width = tensor.width
    if width * 2 > pool.size:
        pool = np.resize(pool, 2 * width)
    text = f"{seed} {client} {tensor.name}".encode()
    base = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        hashes = _mixed(np.uint64(base) + np.arange(row0, row1, dtype=np.uint64))
    windows = sliding_window_view(pool, width)
    places = (hashes >> np.uint64(32)) % np.uint64(len(windows))
    keys = hashes.astype(kind)
    rows = np.empty((row1 - row0, width), kind)
    step = max(1, _BLOCK_BYTES // (width * SIZES[tensor.dtype]))
    for i in range(0, len(rows), step):
        block = rows[i : i + step]
        np.bitwise_xor(windows[places[i : i + step]], keys[i : i + step, None], out=block)
        block &= kind(keep)
        block |= kind(fill)
    return rows.tobytes()
