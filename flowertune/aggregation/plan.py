"""The plan: which rows of which tensors travel in which message. Made from shapes alone."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from flowertune.aggregation.dtypes import size_of
from flowertune.base.errors import UserError

# Pieces of a bucket are arrays of their own, so that Flower's copies of one stay small.
PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Tensor:
    """A tensor's name, shape and kind of values (as safetensors names it).

    It is seen as rows of the last dimension's width; a vector is one row.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def width(self) -> int:
        """Values in a row."""
        return self.shape[-1] if self.shape else 1

    @property
    def rows(self) -> int:
        """Rows: the product of all dimensions but the last."""
        return math.prod(self.shape[:-1]) if self.width else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * size_of(self.dtype, self.name)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class Piece:
    """The rows from ``row0`` to before ``row1`` of a tensor."""

    tensor: Tensor
    row0: int
    row1: int

    @property
    def start(self) -> int:
        """The first byte of the piece within its tensor."""
        return self.row0 * self.tensor.row_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the piece."""
        return (self.row1 - self.row0) * self.tensor.row_bytes


Bucket = tuple[Piece, ...]


@dataclass(frozen=True)
class Part:
    """The pieces of a bucket that one message carries: ``first`` to before ``end``."""

    bucket: int
    first: int
    end: int


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key in which layer 2 comes before layer 10."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts if p)


class Plan:
    """A model's tensors in a fixed order, cut into buckets of at most ``bucket_bytes``.

    Whoever knows names, shapes and kinds makes the same plan, in whatever order the tensors lie
    in files.

    Raises
    ------
    UserError
        If a row is larger than a bucket, or a kind of values cannot be averaged.
    """

    def __init__(self, tensors: Iterable[Tensor], bucket_bytes: int) -> None:
        self.tensors = tuple(sorted(tensors, key=lambda t: (natural(t.name), t.name)))
        self.bucket_bytes = bucket_bytes
        for tensor in self.tensors:
            if tensor.row_bytes > bucket_bytes and tensor.rows:
                raise UserError(
                    f"a row of tensor {tensor.name!r} has {tensor.row_bytes:,} bytes, and a "
                    f"bucket {bucket_bytes:,}; use a larger aggregation.bucket-mb (in "
                    "[tool.flwr.app.config] of pyproject.toml)."
                )

    @classmethod
    def of_one_bucket(cls, tensors: Iterable[Tensor]) -> "Plan":
        """Return the plan that sends the whole model in one message."""
        tensors = tuple(tensors)
        return cls(tensors, max(1, sum(tensor.nbytes for tensor in tensors)))

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the whole model."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @cached_property
    def digest(self) -> str:
        """The sha256 of all that decides what a bucket holds."""
        shapes = [[t.name, t.dtype, list(t.shape)] for t in self.tensors]
        text = json.dumps([PIECE_BYTES, self.bucket_bytes, shapes], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets, each a tuple of pieces; together every row once, in order."""
        done: list[Bucket] = []
        pieces: list[Piece] = []
        left = self.bucket_bytes
        for tensor in self.tensors:
            row, most = 0, max(1, PIECE_BYTES // tensor.row_bytes) if tensor.rows else 0
            while row < tensor.rows:
                take = min(left // tensor.row_bytes, most, tensor.rows - row)
                if take == 0:
                    done.append(tuple(pieces))
                    pieces, left = [], self.bucket_bytes
                    continue
                pieces.append(Piece(tensor, row, row + take))
                left -= pieces[-1].nbytes
                row += take
        if pieces:
            done.append(tuple(pieces))
        return tuple(done)

    def parts(self, bucket: int, part_bytes: int) -> Iterator[Part]:
        """Yield the parts of a bucket, in order: at most ``part_bytes`` each, or a single piece."""
        first, size = 0, 0
        for i, piece in enumerate(self.buckets[bucket]):
            if i > first and size + piece.nbytes > part_bytes:
                yield Part(bucket, first, i)
                first, size = i, 0
            size += piece.nbytes
        yield Part(bucket, first, len(self.buckets[bucket]))

    def pieces(self, part: Part) -> Bucket:
        """Return the pieces of a part."""
        return self.buckets[part.bucket][part.first : part.end]
