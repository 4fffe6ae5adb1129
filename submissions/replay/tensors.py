"""Files of tensors that somebody else wrote: bounded before they are read, and compared."""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile, open_untrusted

HEADER = 16 * 2**20  # bytes that list the tensors of a file
MOST = 50_000  # tensors of a file
FILE_BYTES = 16 * 2**30


def read_tensors(path: Path, most: int = FILE_BYTES) -> dict[str, Any]:
    """Return the torch tensors of a safetensors file, by name.

    Raises
    ------
    UnusableFile
        It is missing, too large, or no such file.
    """
    # Late: the command's help does without torch.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with open_untrusted(path, most) as file:
            head = file.read(8)
    except FileNotFoundError:
        raise UnusableFile("is missing") from None
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    if not 0 < length <= min(HEADER, path.stat().st_size):
        raise UnusableFile("is no safetensors file, or lists too many tensors")
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, TypeError, OverflowError) as error:
        raise UnusableFile(f"is no safetensors file ({one_line(error, 100)})") from None
    if len(tensors) > MOST:
        raise UnusableFile(f"has {len(tensors):,} tensors, and at most {MOST:,} are read")
    return tensors


@dataclass(frozen=True)
class TensorDifference:
    """The first tensor that differs, by name, and how much it does.

    ``largest`` is the largest difference of a value; None where shapes or dtypes differ, or a
    tensor is on one side only: ``what`` then says which.
    """

    name: str
    what: str
    largest: float | None = None
    values: int = 0  # that differ
    of: int = 0


def first_difference(
    one: Mapping[str, Any], other: Mapping[str, Any]
) -> tuple[TensorDifference | None, int]:
    """Return the first tensor, in the order of names, with other bits, and how many have.

    ``one`` is what was claimed, ``other`` what came of training again.
    """
    first, count = None, 0
    for name in sorted(one.keys() | other.keys()):
        a, b = one.get(name), other.get(name)
        if a is None or b is None:
            found = TensorDifference(name, "is missing " + ("before" if a is None else "now"))
        elif a.shape != b.shape or a.dtype != b.dtype:
            kinds = [f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in (a, b)]
            found = TensorDifference(name, f"was {kinds[0]} and is {kinds[1]}")
        elif _same_bits(a, b):
            continue
        else:
            apart = (a.double() - b.double()).abs()
            largest = float(apart.max()) if apart.numel() else 0.0
            differ = int((~(a == b)).sum())
            found = TensorDifference(
                name, f"has other values, up to {largest:.3g} apart", largest, differ, a.numel()
            )
        count += 1
        first = first or found
    return first, count


def _same_bits(a: Any, b: Any) -> bool:
    import torch

    flat = [t.contiguous().reshape(-1) for t in (a, b)]
    # Bytes, not values: NaN is not equal to itself, and -0.0 is equal to 0.0.
    raw = [t.view(torch.uint8) if t.numel() else t for t in flat]
    return torch.equal(*raw)


def relative_update(
    before: Mapping[str, Any], claimed: Mapping[str, Any], again: Mapping[str, Any]
) -> float | None:
    """Return how far two results of a round are apart, relative to what the round changed.

    That is the norm of (again - claimed) over the norm of (claimed - before), of all values
    together: 0 for equal results; about 1 and more for unrelated ones. None where names or shapes
    differ; infinite where only one of them changed anything.
    """
    if not (before.keys() == claimed.keys() == again.keys()):
        return None
    apart = moved = 0.0
    for name, old in before.items():
        new, other = claimed[name], again[name]
        if not (old.shape == new.shape == other.shape):
            return None
        apart += float((other.double() - new.double()).square().sum())
        moved += float((new.double() - old.double()).square().sum())
    if not moved:
        return 0.0 if not apart else math.inf
    found = math.sqrt(apart / moved)
    return found if math.isfinite(found) else math.inf
