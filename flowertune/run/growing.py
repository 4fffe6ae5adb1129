"""A JSONL file that only grows while a run goes on; a state of the run says how far it counts."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowertune.base.files import json_objects, open_regular, sync
from flowertune.base.text import one_line

LINES, BYTES, SHA256 = "lines", "bytes", "sha256"


class GrowingFile:
    """Lines are appended and durable at once; nothing that was written is written again.

    A run that is killed leaves lines after those that its last state counts, or a part of one.
    Whoever goes on from the state cuts them off.
    """

    def __init__(self, path: Path) -> None:
        """Take a file that does not exist yet, or is to be written anew."""
        self.path = path
        self._lines = self._bytes = 0
        self._sum = hashlib.sha256()
        self._begun = False
        # The sha256 of the last line that counts, without its line break; None before the first.
        self.last: str | None = None

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write lines behind those that are there; the first call begins the file anew.

        Raises
        ------
        OSError
            If the disk is full, or the file cannot be written.
        """
        texts = [json.dumps(dict(line), sort_keys=True) + "\n" for line in lines]
        data = "".join(texts).encode("ascii")
        with self.path.open("ab" if self._begun else "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not self._begun:
            sync(self.path.parent)
        self._begun = True
        self._lines += len(texts)
        self._bytes += len(data)
        self._sum.update(data)
        if texts:
            self.last = hashlib.sha256(texts[-1].rstrip("\n").encode("ascii")).hexdigest()

    def mark(self) -> dict[str, Any]:
        """Return how far the file counts: its lines and bytes, and the sha256 of all of them."""
        return {LINES: self._lines, BYTES: self._bytes, SHA256: self._sum.hexdigest()}

    def go_on(self, mark: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the lines up to a mark, and cut off what stands behind them at the next append.

        Raises
        ------
        ValueError
            If the file does not begin with what it had when the mark was made, or cannot be read;
            says which.
        """
        size = int(mark[BYTES])
        try:
            with open_regular(self.path) as file:
                data = file.read(size)
        except OSError as error:
            raise ValueError(f"it cannot be read ({error.strerror})") from None
        if len(data) < size:
            raise ValueError(f"it has {len(data):,} bytes, and the run had written {size:,}")
        self._sum = hashlib.sha256(data)
        if self._sum.hexdigest() != mark[SHA256]:
            raise ValueError(f"its first {size:,} bytes are not those that the run wrote")
        try:
            lines = list(json_objects(data.decode("utf-8").splitlines()))
        except ValueError as error:
            raise ValueError(one_line(error)) from None
        self._lines, self._bytes, self._begun = len(lines), size, True
        written = data.rstrip(b"\n").rpartition(b"\n")[2]
        self.last = hashlib.sha256(written).hexdigest() if lines else None
        return lines

    def cut(self) -> None:
        """Cut off what stands behind the mark that ``go_on`` was given.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        with self.path.open("r+b") as file:
            file.truncate(self._bytes)
            os.fsync(file.fileno())
