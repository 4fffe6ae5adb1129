"""All boards of a run while it goes on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common import log

from flowertune.loggers import tensorboard
from flowertune.loggers.tensorboard import TensorBoard
from flowertune.loggers.wandb import SETTING, WeightsAndBiases


class Board(Protocol):
    """Something that shows numbers of rounds."""

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass on a round's numbers."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Boards:
    """Several boards as one. One that fails is left out from then on: it is no reason to stop."""

    def __init__(self, boards: list[Board]) -> None:
        self._boards = boards

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass a line of rounds.jsonl on to every board."""
        for board in list(self._boards):
            try:
                board.log_round(line)
            except Exception as error:  # network, disk, a library's own kinds
                log(WARNING, "%s shows no more rounds: %s", type(board).__name__, error)
                self._boards.remove(board)

    def close(self) -> None:
        """Finish every board."""
        for board in self._boards:
            try:
                board.close()
            except Exception as error:
                log(WARNING, "%s did not close: %s", type(board).__name__, error)


@contextmanager
def boards_of(
    cfg: Mapping[str, Any],
    folder: Path,
    about: Mapping[str, Any],
    rounds_done: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Boards]:
    """Yield the boards of a run: TensorBoard where tensorboardX is installed, W&B where wanted.

    Parameters
    ----------
    folder : Path
        The run's folder; event files go into ``tensorboard/`` in it.
    about : Mapping
        What run.json says: run-id, name and settings are used.
    rounds_done : Sequence
        The lines of the rounds finished before, in a run that goes on.

    Raises
    ------
    UserError
        If ``log.wandb`` is true and wandb is not there or does not start.
    """
    found: list[Board] = []
    if cfg.get(SETTING, False):
        found.append(WeightsAndBiases(folder, about))
    if tensorboard.installed():
        try:
            found.append(TensorBoard(folder / "tensorboard", rounds_done))
        except OSError as error:
            log(WARNING, "no event files for TensorBoard: %s", error)
    boards = Boards(found)
    try:
        yield boards
    finally:
        boards.close()
