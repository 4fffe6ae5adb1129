"""TensorBoard: event files written by tensorboardX."""

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.loggers.numbers import numbers_of

PACKAGE = "tensorboardX"


def installed() -> bool:
    """Whether event files can be written."""
    return importlib.util.find_spec(PACKAGE) is not None


class TensorBoard:
    """A new event file in ``folder``, which begins with the rounds that are done already.

    Numbers of these and later rounds in older event files there are taken back: a killed run may
    have written some that did not count, and lost others.
    """

    def __init__(self, folder: Path, rounds_done: Sequence[Mapping[str, Any]] = ()) -> None:
        # Not its SummaryWriter: that one writes in a thread, and when the disk is full the thread
        # dies and the next call waits for ever.
        writer = importlib.import_module(f"{PACKAGE}.event_file_writer")
        self._events: Any = importlib.import_module(f"{PACKAGE}.proto.event_pb2")
        self._summaries: Any = importlib.import_module(f"{PACKAGE}.proto.summary_pb2")
        folder.mkdir(parents=True, exist_ok=True)
        begun = any(folder.glob("events.*"))
        self._file = writer.EventsWriter(str(folder / "events"))
        if begun:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._file.write_event(self._events.Event(step=1, session_log=start))
        for line in rounds_done:
            self.log_round(line)

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Write a round's numbers; they are in the file when this returns."""
        values = [
            self._summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in numbers_of(line).items()
        ]
        summary = self._summaries.Summary(value=values)
        event = self._events.Event(step=line["round"], summary=summary)
        if "time" in line:
            event.wall_time = datetime.fromisoformat(line["time"]).timestamp()
        self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def write_events(folder: Path, rounds: Sequence[Mapping[str, Any]]) -> None:
    """Write the rounds of a run as an event file in ``folder``, for ``tensorboard --logdir``.

    Raises
    ------
    UserError
        If tensorboardX is not installed, or the folder holds event files already.
    """
    if not installed():
        raise UserError(
            f"TensorBoard's event files are written by {PACKAGE}, which is not installed: "
            f"pip install {PACKAGE}."
        )
    if any(folder.glob("events.*")):
        raise UserError(
            f"{folder} holds event files already, and TensorBoard would mix them up; give an "
            "empty folder."
        )
    TensorBoard(folder, rounds).close()
