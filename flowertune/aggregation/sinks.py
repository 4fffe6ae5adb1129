"""Where the averaged model goes: sharded safetensors, a digest, or memory for small adapters."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flowertune.aggregation.plan import Piece, Plan, Tensor
from flowertune.base.files import replace_folder

SHARD_BYTES = 5 * 10**9
# The order in which safetensors lays out kinds of values; within one it goes by name.
_LAYOUT = (
    "U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8", "BOOL",
)  # fmt: skip


class Sink(Protocol):
    """Takes the mean's pieces, in any order; bytes count once ``flush`` has returned."""

    def write(self, piece: Piece, data: bytes | memoryview) -> None:
        """Take one piece."""
        ...

    def flush(self) -> None:
        """Make what was written durable."""
        ...


def header_of(tensors: Iterable[Tensor]) -> tuple[bytes, dict[str, int]]:
    """Return the head of a safetensors file, and where in the file each tensor starts.

    It is byte for byte what ``safetensors.torch.save_file(…, metadata={"format": "pt"})`` writes.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for tensor in sorted(tensors, key=lambda t: (_LAYOUT.index(t.dtype), t.name)):
        starts[tensor.name] = end
        end += tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [starts[tensor.name], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + start for name, start in starts.items()}


def shards_of(plan: Plan, shard_bytes: int) -> dict[str, list[Tensor]]:
    """Return the tensors of each file, by file name, as transformers names and fills shards."""
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in plan.tensors:
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    n = len(shards)
    return {f"model-{i:05}-of-{n:05}.safetensors": s for i, s in enumerate(shards, start=1)}


@dataclass(frozen=True)
class _Place:
    file: int
    start: int


class SafetensorsSink:
    """Writes a folder of safetensors files that gets its name only when it is complete.

    Parameters
    ----------
    folder : Path
        The folder to end with. Until then everything is in ``part``, beside it.
    keep : bool
        Whether to go on with what lies in ``part``.
    """

    def __init__(
        self, folder: Path, plan: Plan, keep: bool = False, shard_bytes: int = SHARD_BYTES
    ) -> None:
        self.folder, self.part = folder, part_of(folder)
        if not keep:
            shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True, exist_ok=True)
        self.plan, self.shards = plan, shards_of(plan, shard_bytes)
        self._places: dict[str, _Place] = {}
        self._files: list[int] = []
        self._touched: set[int] = set()
        for name, tensors in self.shards.items():
            head, starts = header_of(tensors)
            file = os.open(self.part / name, os.O_RDWR | os.O_CREAT, 0o644)
            self._files.append(file)
            os.pwrite(file, head, 0)
            os.ftruncate(file, len(head) + sum(tensor.nbytes for tensor in tensors))
            self._places |= {t.name: _Place(file, starts[t.name]) for t in tensors}

    def write(self, piece: Piece, data: bytes | memoryview) -> None:
        """Write a piece to its place.

        Raises
        ------
        OSError
            If the disk is full.
        """
        place, view = self._places[piece.tensor.name], memoryview(data)
        start = place.start + piece.start
        while view:
            done = os.pwrite(place.file, view, start)
            view, start = view[done:], start + done
        self._touched.add(place.file)

    def flush(self) -> None:
        """Make the written pieces durable."""
        for file in self._touched:
            os.fsync(file)
        self._touched.clear()

    def close(self) -> None:
        """Close the files; what was written can be resumed."""
        while self._files:
            os.close(self._files.pop())

    def finish(self, others: dict[str, str]) -> Path:
        """Add the index and ``others`` (text by file name), and give the folder its name."""
        self.flush()
        self.close()
        if len(self.shards) > 1:
            index = {
                "metadata": {"total_size": self.plan.nbytes},
                "weight_map": {t.name: file for file, ts in self.shards.items() for t in ts},
            }
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            others = {**others, "model.safetensors.index.json": text}
        for name, text in others.items():
            (self.part / name).write_text(text, "utf-8")
        replace_folder(self.part, self.folder)
        return self.folder


class DigestSink:
    """Stores nothing but the texts at the end: for trying out sizes that no disk here holds."""

    def __init__(self, folder: Path, keep: bool = False) -> None:
        self.folder, self.part = folder, part_of(folder)
        if not keep:
            shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir(parents=True, exist_ok=True)

    def write(self, piece: Piece, data: bytes | memoryview) -> None:
        """Let the piece go."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def finish(self, others: dict[str, str]) -> Path:
        """Write ``others`` (text by file name), and give the folder its name."""
        for name, text in others.items():
            (self.part / name).write_text(text, "utf-8")
        replace_folder(self.part, self.folder)
        return self.folder


class MemorySink:
    """Keeps the mean in memory, tensor by tensor."""

    def __init__(self, plan: Plan, itemsize: int) -> None:
        self._itemsize = itemsize
        self.data = {t.name: bytearray(t.rows * t.width * itemsize) for t in plan.tensors}

    def write(self, piece: Piece, data: bytes | memoryview) -> None:
        """Keep a piece, whose values have ``itemsize`` bytes."""
        start = piece.row0 * piece.tensor.width * self._itemsize
        self.data[piece.tensor.name][start : start + len(data)] = data

    def flush(self) -> None:
        """Do nothing."""


def part_of(folder: Path) -> Path:
    """Return the temporary place of a folder that is not complete yet."""
    return folder.with_name(f".{folder.name}.part")
