"""TensorBoard: event files written by tensorboardX."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter

# Protobuf makes these classes at run time.
from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore
from tensorboardX.proto.summary_pb2 import Summary  # type: ignore

from flowertune.base.errors import UserError
from flowertune.loggers.scalars import round_scalars


class TensorBoard:
    """A new event file in ``folder``, which begins with the rounds finished before.

    It tells TensorBoard to discard what older event files there say of these and later rounds: a
    killed run may have written rounds that did not count, and lost others.

    Raises
    ------
    OSError
        If the file cannot be written.
    """

    def __init__(self, folder: Path, rounds_done: Sequence[Mapping[str, Any]] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        resumed = any(folder.glob("events.*"))
        # Not SummaryWriter, which writes in a thread: when the disk is full the thread dies, and
        # the next call waits for ever.
        self._file = EventsWriter(str(folder / "events"))
        if resumed:
            self._file.write_event(Event(step=1, session_log=SessionLog(status=SessionLog.START)))
        for line in rounds_done:
            self.log_round(line)

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Write a round's numbers; they are in the file when this returns."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in round_scalars(line).items()
        ]
        event = Event(step=line["round"], summary=Summary(value=values))
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
        If the folder already holds event files.
    OSError
        If the file cannot be written.
    """
    if any(folder.glob("events.*")):
        raise UserError(
            f"{folder} already holds event files, which TensorBoard would mix with the new one; "
            "give an empty folder."
        )
    TensorBoard(folder, rounds).close()
