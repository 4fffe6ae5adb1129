"""What the server writes of a profile: a file in the run's folder."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common import log

from flowertune.config.settings import Settings
from flowertune.profiling.format import FILE, VERSION
from flowertune.profiling.phases import OFF, AnyProfile, Profile, Span
from flowertune.profiling.records import COLUMNS, as_row, fold_many

ROWS_A_LINE = 20


class Journal:
    """Writes numbered lines of JSON, each in one piece, to a file."""

    def __init__(self, path: Path, facts: Mapping[str, Any], admitted: Callable[[], bool]) -> None:
        self._path: Path | None = path
        self._facts, self._admitted = dict(facts), admitted
        self._lines = 0
        self.start = time.time()
        self._begin()

    def _begin(self) -> bool:
        """Write the head as soon as writing is allowed; return whether it is written."""
        if not self._lines and self._admitted():
            self._write(
                {
                    "version": VERSION,
                    "start": round(self.start, 6),
                    "columns": COLUMNS,
                    "facts": self._facts,
                }
            )
        return self._lines > 0

    def keep(self, spans: list[Span]) -> None:
        """Write spans; many of the same phase become one (see ``fold_many``)."""
        if not self._begin():
            return
        rows = [as_row(span, self.start) for span in fold_many(spans)]
        for first in range(0, len(rows), ROWS_A_LINE):
            self._write({"rows": rows[first : first + ROWS_A_LINE]})

    def end(self, status: str) -> None:
        """Write the last line: how the run ended."""
        if self._begin():
            self._write({"end": round(time.time() - self.start, 3), "status": status})

    def _write(self, body: Mapping[str, Any]) -> None:
        line = json.dumps({"line": self._lines, **body}, separators=(",", ":")) + "\n"
        self._lines += 1
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            # A profile is no reason for a run to fail.
            log(WARNING, "no more profile in %s: %s", self._path, error.strerror or error)
            self._path = None


@contextmanager
def recording(
    cfg: Settings,
    folder: Path,
    facts: Mapping[str, Any],
    admitted: Callable[[], bool] = lambda: True,
) -> Iterator[AnyProfile]:
    """Yield the profile of a run; with ``profile.enabled=false``, one that does nothing.

    Parameters
    ----------
    folder : Path
        The run's folder, for profile.jsonl. A run that is resumed in it appends to the file.
    facts : Mapping[str, Any]
        A few short values that describe the run to the reader.
    admitted : Callable[[], bool]
        Whether the run may write to the folder yet. Until it may, nothing is written.
    """
    if not cfg.profile.enabled:
        yield OFF
        return
    journal = Journal(folder / FILE, facts, admitted)
    profile = Profile(keep=journal.keep)
    status = "failed"
    try:
        yield profile
        status = "finished"
    finally:
        profile.close()
        journal.end(status)
