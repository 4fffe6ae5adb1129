"""Weighted means of pieces, added up one client at a time.

| values        | accumulator  | order of clients                         |
| 16-bit        | float32      | fixed; another one may round differently |
| 16-bit, exact | float64      | any: sums are exact, and rounded once    |
| 32-bit        | float64      | fixed; another one may round differently |
| 32-bit, exact | two float64  | any: 106 bits are kept until the division |
| 64-bit        | 80-bit float | fixed; another one may round differently |

Values times whole weights are added up, and divided once at the end; the mean of equal models is
that model, bit for bit. Sums of float16 values are exact in float64 while weights times values add
up to less than 2^29; those of bfloat16 unless the exponents at one place lie more than 44 apart,
less the bits of the weights' sum.

The first client's values start a sum: adding them to a zero would turn -0.0 into 0.0.
"""

import warnings
from typing import Protocol

import numpy as np
import torch

from flowertune.aggregation.dtypes import FLOATS, SIZES
from flowertune.aggregation.plan import Piece
from flowertune.base.errors import UserError

MOST_WEIGHT = 2**28
_TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
# Values that are converted and added at a time: the converted ones stay in the cache, and calls of
# torch cost little beside the work in them.
_BLOCK = 1 << 20


class Mean(Protocol):
    """The mean of one piece; ``add`` each client's bytes, then take ``result`` once."""

    def add(self, data: bytes, weight: int) -> None:
        """Add a client's values with its weight."""
        ...

    def result(self) -> bytes | memoryview:
        """Return the bytes of the mean."""
        ...


def bytes_of_accumulator(dtype: str, exact: bool) -> int:
    """Return the bytes that the accumulator takes for one value."""
    if dtype in ("F16", "BF16"):
        return 8 if exact else 4
    if dtype == "F32":
        return 16 if exact else 8
    return 16 if dtype == "F64" else SIZES[dtype]


class ScratchBuffer:
    """Memory for accumulators, kept from bucket to bucket: fresh pages cost as much as a sum."""

    def __init__(self) -> None:
        self._all = torch.empty(0, dtype=torch.uint8)
        self._used = 0
        self._blocks: dict[torch.dtype, torch.Tensor] = {}

    def converted(self, part: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return up to a block of values in another kind; the next call overwrites them."""
        if dtype not in self._blocks:
            self._blocks[dtype] = torch.empty(_BLOCK, dtype=dtype)
        return self._blocks[dtype][: len(part)].copy_(part)

    def reserve(self, nbytes: int) -> None:
        """Reserve ``nbytes`` of scratch space; earlier content is lost."""
        self._used = 0
        if self._all.numel() < nbytes:
            self._all = torch.empty(0, dtype=torch.uint8)
            self._all = torch.empty(nbytes, dtype=torch.uint8)

    def take(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Return scratch for ``count`` values (uninitialized)."""
        size = count * dtype.itemsize
        start = self._used
        self._used += size + -size % 8
        if self._used > self._all.numel():
            return torch.empty(count, dtype=dtype)
        return self._all[start : start + size].view(dtype)


def mean_of(
    piece: Piece, total: int, exact: bool, scratch: ScratchBuffer, result: str | None = None
) -> Mean:
    """Return an empty mean of a piece.

    Parameters
    ----------
    total : int
        The sum of all weights.
    exact : bool
        Whether the sum must not depend on the order of clients (see the module's table).
    result : str | None
        The kind of the mean's values: that of the piece, or F32 for the mean of 16-bit values.
    """
    tensor = piece.tensor
    count = (piece.row1 - piece.row0) * tensor.width
    if tensor.dtype not in FLOATS:
        return _Same(tensor.name)
    if tensor.dtype == "F64":
        return _Longest(total)
    wide = exact or tensor.dtype == "F32" or result == "F32"
    kind = _TorchMean if not (exact and tensor.dtype == "F32") else _Double
    return kind(tensor.dtype, result or tensor.dtype, count, total, wide, scratch)


class _TorchMean:
    """Block by block: convert into a small buffer, then multiply and add."""

    def __init__(
        self, dtype: str, result: str, count: int, total: int, wide: bool, scratch: ScratchBuffer
    ) -> None:
        self.dtype, self.out, self.total, self.wide = _TORCH[dtype], _TORCH[result], total, wide
        self.scratch, self.sum = (
            scratch,
            scratch.take(count, torch.float64 if wide else torch.float32),
        )
        # Weights over a power of two are as exact as whole ones, and their sums cannot overflow.
        self.scale = 1 if wide else 1 << total.bit_length()
        self.empty = True

    def add(self, data: bytes, weight: int) -> None:
        values = _tensor(data).view(self.dtype)
        factor = weight / self.scale
        for total, part in zip(self.sum.split(_BLOCK), values.split(_BLOCK), strict=True):
            if self.wide and part.dtype.itemsize == 2:
                # Two fast conversions instead of a slow one.
                part = self.scratch.converted(part, torch.float32)
            part = self.scratch.converted(part, total.dtype)
            if self.empty:
                torch.mul(part, factor, out=total)
            else:
                total.add_(part, alpha=factor)
        self.empty = False

    def result(self) -> memoryview:
        out = torch.empty(len(self.sum), dtype=self.out)
        for i in range(0, len(out), _BLOCK):
            part = self.sum[i : i + _BLOCK]
            if self.wide:
                part = part / self.total
                if self.out.itemsize == 2:
                    part = to_odd_float32(part)
            else:
                part = part / torch.tensor(self.total / self.scale)
            out[i : i + _BLOCK].copy_(part)
        return out.view(torch.uint8).numpy().data


class _Double:
    """Sums of two float64, the second of which holds what rounding cuts off from the first."""

    def __init__(
        self, dtype: str, result: str, count: int, total: int, wide: bool, scratch: ScratchBuffer
    ) -> None:
        self.total = total
        self.high = scratch.take(count, torch.float64)
        self.low = scratch.take(count, torch.float64).zero_()
        self.empty = True

    def add(self, data: bytes, weight: int) -> None:
        values = _tensor(data).view(torch.float32)
        for i in range(0, len(values), _BLOCK):
            high, low = self.high[i : i + _BLOCK], self.low[i : i + _BLOCK]
            new = values[i : i + _BLOCK].double() * weight  # 24 + 29 bits: exact
            if self.empty:
                high.copy_(new)
                continue
            both = high + new  # Knuth's two-sum: both + error is exactly high + new
            part = both - high
            error = (high - (both - part)) + (new - part)
            # The error of a sum that is infinite would be no number.
            low.add_(error.nan_to_num_(nan=0.0))
            high.copy_(both)
        self.empty = False

    def result(self) -> memoryview:
        out = np.empty(len(self.high), np.float32)
        for i in range(0, len(out), _BLOCK):
            high = self.high[i : i + _BLOCK].numpy()
            low = self.low[i : i + _BLOCK].numpy()
            # Where there is nothing to add, -0.0 must stay what it is.
            both = np.where(low == 0, high, high.astype(np.longdouble) + low)
            out[i : i + _BLOCK] = both / self.total
        return out.view(np.uint8).data


class _Longest:
    """Means of 64-bit floats, in the longest floats there are."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.sum: np.ndarray | None = None

    def add(self, data: bytes, weight: int) -> None:
        values = np.frombuffer(data, np.float64).astype(np.longdouble) * weight
        self.sum = values if self.sum is None else self.sum + values

    def result(self) -> memoryview:
        assert self.sum is not None
        return (self.sum / self.total).astype(np.float64).view(np.uint8).data


class _Same:
    """Integers, which have no mean: all clients must hold the same ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data: bytes | None = None

    def add(self, data: bytes, weight: int) -> None:
        if self.data is not None and self.data != data:
            raise UserError(
                f"tensor {self.name!r} holds integers, and they differ between clients; only "
                "clients with the same model can be averaged."
            )
        self.data = data

    def result(self) -> bytes:
        assert self.data is not None
        return self.data


def _tensor(data: bytes) -> torch.Tensor:
    """Return bytes as a tensor of bytes, without a copy; it must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(np.frombuffer(data, np.uint8))


def to_odd_float32(values: torch.Tensor) -> torch.Tensor:
    """Return float64 values as float32, rounded to odd: cut off, and the last bit set if inexact.

    Rounding the result to 16 bits is then the same as rounding the float64 at once (Boldo and
    Melquiond, 2008); torch itself rounds twice. Values below 2^-126 are rounded to nearest.
    """
    bits = values.view(torch.int64)
    low = (1 << 29) - 1
    odd = (bits & ~low) | ((bits & low) != 0).to(torch.int64) << 29
    return odd.view(torch.float64).to(torch.float32)
