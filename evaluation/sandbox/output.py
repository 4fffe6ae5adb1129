"""What a program leaves, on its way out of the sandbox: files of one folder, through a pipe.

No folder of this machine can be written from inside. The supervisor sends each file when the
program and all that it started have ended; here it is written under a name that was checked, up to
a limit on all of them together.
"""

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")
_LINE = 1000  # bytes that name a file and its size
_PIECE = 2**20


@dataclass(frozen=True)
class Output:
    """Which files to take: those of ``folder`` in the sandbox, into ``target``, which is new.

    At most ``most`` bytes in at most ``files`` files.
    """

    folder: str
    target: Path
    most: int
    files: int


class Receiver:
    """Writes what comes out of a pipe, in a thread; ``given`` is the end for the supervisor."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._problem = "the sandbox ended before its files were out"
        end, self.given = os.pipe()
        self._thread = threading.Thread(target=self._receive, args=(end,), daemon=True)
        self._thread.start()

    def problem(self) -> str:
        """What went wrong with the files, empty where nothing did; waits for the last one."""
        self.close()
        self._thread.join()
        return self._problem

    def close(self) -> None:
        """Give up this process's own copy of the writing end."""
        if self.given >= 0:
            os.close(self.given)
            self.given = -1

    def _receive(self, end: int) -> None:
        with os.fdopen(end, "rb") as pipe:
            try:
                self._problem = self._files(pipe)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._problem = f"its files cannot be taken ({error})"

    def _files(self, pipe: BinaryIO) -> str:
        output, left = self._output, self._output.most
        output.target.mkdir(parents=True, exist_ok=True)
        for _ in range(output.files + 1):
            line = json.loads(pipe.readline(_LINE) or b"{}")
            if "name" not in line:
                return str(line.get("problem", self._problem))[:300]
            name, size = str(line["name"]), int(line["bytes"])
            if not NAME.fullmatch(name):
                return f"it left a file named {ascii(name)[:100]}"
            left -= size
            if left < 0:
                return f"it left more than {output.most:,} bytes"
            with (output.target / name).open("xb") as file:
                while size:
                    piece = pipe.read(min(size, _PIECE))
                    if not piece:
                        return self._problem
                    file.write(piece)
                    size -= len(piece)
        return f"it left more than {output.files} files"


@contextmanager
def received(output: Output) -> Iterator[Receiver]:
    """Yield what writes the files of a sandbox; within the block the sandbox runs."""
    receiver = Receiver(output)
    try:
        yield receiver
    finally:
        receiver.problem()
