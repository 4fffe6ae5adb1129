"""The finished buckets of a round, recorded one by one, so that a killed server can resume."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowertune.base.files import write_atomically

FILE = "journal.jsonl"


class Journal:
    """One line about the round, then one line (bucket, sha256 of its mean) a finished bucket.

    Lines are on the disk before ``finished`` returns; half a last line counts for nothing.

    Parameters
    ----------
    path : Path | None
        The file; None keeps the lines in memory only.
    about : Mapping[str, Any]
        What the round is: plan, cohort, weights. A file about another round is begun anew.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self.path, self.about = path, dict(about)
        self.sha256: list[str] = []
        if path is None:
            return
        before = read_journal(path)
        if before is not None and before[0] == self.about:
            self.sha256 = before[1]
        lines = [self.about, *({"bucket": i, "sha256": s} for i, s in enumerate(self.sha256))]
        # Whole or not at all: killed in here, a run must not lose the buckets that are done.
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
        write_atomically(path, text)

    @property
    def done(self) -> int:
        """How many buckets are finished; they are finished in order."""
        return len(self.sha256)

    def finished(self, sha256: str) -> None:
        """Enter the next bucket; its bytes must be durable by now."""
        line = json.dumps({"bucket": self.done, "sha256": sha256}, sort_keys=True) + "\n"
        self.sha256.append(sha256)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    @property
    def digest(self) -> str:
        """The sha256 over the buckets' sha256, in order."""
        return hashlib.sha256("".join(self.sha256).encode()).hexdigest()


def read_journal(path: Path) -> tuple[dict[str, Any], list[str]] | None:
    """Return what a journal is about, and the sha256 of its finished buckets; None without one.

    It ends where a line is damaged, wherever that is: what comes after is averaged again.
    """
    if not path.is_file():
        return None
    lines = []
    for text in path.read_text("utf-8").splitlines(keepends=True):
        try:
            lines.append(json.loads(text) if text.endswith("\n") else None)
        except ValueError:
            lines.append(None)
    whole = lines[: lines.index(None)] if None in lines else lines
    if not whole:
        return None
    return whole[0], [line["sha256"] for line in whole[1:]]
