"""Answers kept on disk while a run goes on, so that a killed run need not begin again.

They lie in the cache of whoever runs the command, and nowhere else: in a folder that somebody hands
in, or where results are written, they could be made up.
"""

import json
import os
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_jsonl, write_jsonl
from flowertune.base.hashing import json_sha256
from flowertune.base.text import one_line
from flowertune.models.smollm2 import cache_folder


class Store:
    """Answers by key, in a JSONL file that is appended to as they come.

    The file's name is a digest of everything the answers depend on, so that a run with another
    model, adapter, task or setting never finds them.
    """

    def __init__(self, path: Path | None):
        """Open the store; None keeps nothing. A line that a kill cut off is left out.

        Raises:
            UserError: the file is damaged in another way.
            OSError: the file cannot be written.
        """
        self.path = path
        self.known: dict[str, Any] = {}
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.known = dict(map(_answer, read_jsonl(path)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} cannot be resumed from ({error}): remove it to start again"
            ) from None
        # Written anew, so that a cut-off last line does not swallow the first new one.
        write_jsonl(path, [_line(key, answer) for key, answer in self.known.items()])
        self._file = path.open("a", encoding="utf-8")

    def get(self, key: str) -> Any:
        """Return the answer, or None."""
        return self.known.get(key)

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer; a kill of this process after this call does not lose it."""
        if self.path is None:
            return
        self.known[key] = answer
        self._file.write(json.dumps(_line(key, answer)) + "\n")
        self._file.flush()

    def remove(self) -> None:
        """Remove the file: the run has come to its end."""
        if self.path is not None:
            self._file.close()
            self.path.unlink(missing_ok=True)


def answers_folder() -> Path:
    """Return where unfinished answers are kept: in the user's cache."""
    return cache_folder(os.environ) / "unfinished-answers"


def store_path(facts: dict[str, Any]) -> Path:
    """Return the file for answers that depend on `facts` (JSON-able)."""
    return answers_folder() / f"{json_sha256(facts)}.jsonl"


def _answer(line: Any) -> tuple[str, Any]:
    """A line's key and answer: a text, or a log-likelihood and whether it is greedy."""
    key, answer = line["key"], line["answer"]
    likelihood = isinstance(answer, list) and [*map(type, answer)] == [float, bool]
    if not isinstance(key, str) or not (isinstance(answer, str) or likelihood):
        raise ValueError(f"no answer: {one_line(ascii(line), 80)}")
    return key, answer


def _line(key: str, answer: Any) -> dict[str, Any]:
    return {"key": key, "answer": answer}
