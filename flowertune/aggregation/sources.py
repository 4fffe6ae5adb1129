"""Where a client's weights come from: safetensors files, mapped into memory, or a function."""

import hashlib
import json
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flowertune.aggregation.dtypes import FLOATS, convert
from flowertune.aggregation.plan import Piece, Tensor
from flowertune.aggregation.synthetic import synthetic_rows
from flowertune.base.errors import UserError

_SAMPLES = 16


class Source(Protocol):
    """What a client gives: tensors, any rows of them, and a name for the whole content."""

    tensors: tuple[Tensor, ...]
    identity: str

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece."""
        ...


@dataclass(frozen=True)
class _Place:
    path: Path
    start: int
    dtype: str


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header and the offset of its data.

    Raises
    ------
    UserError
        If it is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 100 * 2**20 else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise UserError(f"{path} is no safetensors file, or a damaged one; fetch it again.")
    header.pop("__metadata__", None)
    return header, 8 + length


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model folder: those its index names, else the one.

    Raises
    ------
    UserError
        If a file is missing.
    """
    files = _named_files(folder)
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder} holds no {missing[0]}; whole models are averaged from safetensors: save "
            "the model with save_pretrained, or set model.weights='synthetic' to try out sizes."
        )
    return files


def has_weights(folder: Path) -> bool:
    """Whether all safetensors files of a model are in its folder."""
    return all(path.is_file() for path in _named_files(folder))


def _named_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    names = {"model.safetensors"}
    if index.is_file():
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    return [folder / name for name in sorted(names)]


def _samples(path: Path, size: int) -> bytes:
    """Return a few stretches of a file, from its beginning to its end."""
    with path.open("rb") as file:
        places = sorted({size * i // _SAMPLES for i in range(_SAMPLES)} | {max(0, size - 4096)})
        return b"".join(os.pread(file.fileno(), 4096, place) for place in places)


class FileSource:
    """Tensors of safetensors files; floats are converted to ``dtype`` when they are read.

    Parameters
    ----------
    files : Iterable[Path]
        Files with different tensors.
    dtype : str | None
        The kind to convert floats to (as safetensors names it); None leaves them as they are.

    ``identity`` changes with the files' headers, sizes, times of change, and samples of their
    content: reading 140 GB to name them would take longer than to average them.
    """

    def __init__(self, files: Iterable[Path], dtype: str | None = None) -> None:
        self._places: dict[str, _Place] = {}
        self._maps: dict[Path, mmap.mmap] = {}
        tensors, seen = [], hashlib.sha256()
        for path in files:
            header, data = read_header(path)
            about = path.stat()
            seen.update(json.dumps([header, about.st_size, about.st_mtime_ns]).encode())
            seen.update(_samples(path, about.st_size))
            for name, entry in header.items():
                start, _ = entry["data_offsets"]
                self._places[name] = _Place(path, data + start, entry["dtype"])
                wire = dtype if dtype and entry["dtype"] in FLOATS else entry["dtype"]
                tensors.append(Tensor(name, tuple(entry["shape"]), wire))
        self.tensors = tuple(tensors)
        self.identity = seen.hexdigest()

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece; its pages leave this process's memory again."""
        name, wanted = piece.tensor.name, piece.tensor.dtype
        place = self._places[name]
        stored = Piece(Tensor(name, piece.tensor.shape, place.dtype), piece.row0, piece.row1)
        start = place.start + stored.start
        mapped = self._map(place.path)
        data = mapped[start : start + stored.nbytes]
        page = start - start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_DONTNEED, page, start + stored.nbytes - page)
        return convert(data, place.dtype, wanted, name)

    def _map(self, path: Path) -> mmap.mmap:
        if path not in self._maps:
            with path.open("rb") as file:
                self._maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[path]


class SyntheticSource:
    """A client's synthetic weights in the shapes of ``tensors``."""

    def __init__(self, tensors: Iterable[Tensor], seed: int, client: int) -> None:
        self.tensors = tuple(tensors)
        self.seed, self.client = seed, client
        self.identity = f"synthetic, seed {seed}, client {client}"

    def read(self, piece: Piece) -> bytes:
        """Return the bytes of a piece."""
        return synthetic_rows(self.seed, self.client, piece.tensor, piece.row0, piece.row1)
