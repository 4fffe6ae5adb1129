"""TensorBoard: event files written by tensorboardX."""

import importlib.util
from collections.abc import Iterable, Mapping
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
    """An event file in ``folder``; rounds after ``done`` that it has already are taken back."""

    def __init__(self, folder: Path, done: int = 0) -> None:
        from tensorboardX import SummaryWriter

        # Steps from here on were written by a run that was killed before they counted.
        purge = done + 1 if any(folder.glob("events.*")) else None
        self._writer = SummaryWriter(str(folder), purge_step=purge)

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Write a round's numbers; they are in the file when this returns."""
        time = datetime.fromisoformat(line["time"]).timestamp() if "time" in line else None
        for name, value in numbers_of(line).items():
            self._writer.add_scalar(name, value, line["round"], walltime=time)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def write_events(folder: Path, rounds: Iterable[Mapping[str, Any]]) -> None:
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
    board = TensorBoard(folder)
    try:
        for line in rounds:
            board.log_round(line)
    finally:
        board.close()
