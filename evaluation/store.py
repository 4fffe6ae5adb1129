"""Answers kept on disk while a run goes on, so that a killed run need not begin again."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any


class Store:
    """Answers by key, in a file that is appended to as they come.

    The file's name is a digest of everything the answers depend on, so that a run with another
    model, adapter, task or setting never finds them.
    """

    def __init__(self, path: Path | None):
        """Open the store; None keeps nothing. A line that a kill cut off is left out."""
        self.path = path
        self.known: dict[str, Any] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                with contextlib.suppress(ValueError, TypeError):
                    key, answer = json.loads(line)
                    self.known[key] = answer
        # A cut-off last line must not swallow the first new one.
        self._file = path.open("a", encoding="utf-8")
        self._file.write("\n")

    def get(self, key: str) -> Any:
        """The answer, or None."""
        return self.known.get(key)

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer; it is on disk when this returns."""
        if self.path is None:
            return
        self.known[key] = answer
        self._file.write(json.dumps([key, answer]) + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Forget everything: the run has come to its end."""
        if self.path is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)


def store_path(folder: Path, facts: dict[str, Any]) -> Path:
    """The file for answers that depend on `facts` (JSON-able)."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return folder / f"unfinished-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
