"""TensorBoard: event files written by tensorboardX."""

import importlib.util
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from flowertune.boards.numbers import numbers_of
from flowertune.errors import UserError

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
        from tensorboardX import SummaryWriter

        purge = 1 if any(folder.glob("events.*")) else None
        # It writes in a thread of its own; a second later everything is in the file.
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=1)
        for line in rounds_done:
            self.log_round(line)

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Write a round's numbers."""
        time = datetime.fromisoformat(line["time"]).timestamp() if "time" in line else None
        for name, value in numbers_of(line).items():
            self._writer.add_scalar(name, value, line["round"], walltime=time)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


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
