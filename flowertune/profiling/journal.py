"""What the server writes of a profile: a file in the run's folder, and the same lines in its log.

Flower keeps the log of a run and hands it out to whoever may read it, from any machine and long
after: ``flwr profile`` reads these lines there. The file is for the report page and for tools.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any

from flwr.common import log

from flowertune.config.settings import Settings
from flowertune.profiling.format import FILE, MARK, VERSION
from flowertune.profiling.phases import OFF, AnyProfile, Profile, Span
from flowertune.profiling.records import COLUMNS, as_row, fold_many

ROWS_A_LINE = 20


class Journal:
    """Numbered lines of JSON, each written at once and whole, to a file and to the log."""

    def __init__(self, path: Path, facts: Mapping[str, Any], admitted: Callable[[], bool]) -> None:
        self._path: Path | None = path
        self._facts, self._admitted = dict(facts), admitted
        self._lines = 0
        self.start = time.time()
        self._begin()

    def _begin(self) -> bool:
        """Write the head, once there is somewhere to write to; return whether it is written."""
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
        """Write spans; kinds of which there are many are folded into one."""
        if not self._begin():
            return
        rows = [as_row(span, self.start) for span in fold_many(spans)]
        for first in range(0, len(rows), ROWS_A_LINE):
            self._write({"rows": rows[first : first + ROWS_A_LINE]})

    def end(self, status: str) -> None:
        """Write that nothing more follows, and how the run ended."""
        if self._begin():
            self._write({"end": round(time.time() - self.start, 3), "status": status})

    def _write(self, body: Mapping[str, Any]) -> None:
        line = json.dumps({"line": self._lines, **body}, separators=(",", ":")) + "\n"
        self._lines += 1
        # One call, so that nothing another thread prints can come in between.
        sys.stdout.write(MARK + line)
        if self._path is None:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            # The log has it all the same, and a run does not fail over its profile.
            log(WARNING, "no more profile in %s: %s", self._path, error.strerror or error)
            self._path = None


@contextmanager
def recording(
    cfg: Settings,
    folder: Path,
    facts: Mapping[str, Any],
    admitted: Callable[[], bool] = lambda: True,
) -> Iterator[AnyProfile]:
    """Yield the profile of a run; with ``profile.enabled=false`` one that does nothing.

    Parameters
    ----------
    folder : Path
        The run's folder, for profile.jsonl. A run that goes on in it adds to the file.
    facts : Mapping[str, Any]
        What the reader should know of the run: a few short values.
    admitted : Callable[[], bool]
        Whether the folder is this run's to write to. Until it is, nothing is written.
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
