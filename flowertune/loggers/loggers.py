"""All loggers of a run while it goes on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common import log

from flowertune.config.settings import Settings
from flowertune.loggers import tensorboard
from flowertune.loggers.tensorboard import TensorBoard
from flowertune.loggers.wandb import WeightsAndBiases


class Logger(Protocol):
    """Something that shows numbers of rounds."""

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass on a round's numbers."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Loggers:
    """Several loggers as one. One that fails is left out from then on: it is no reason to stop."""

    def __init__(self, loggers: list[Logger]) -> None:
        self._loggers = loggers

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass a line of rounds.jsonl on to every logger."""
        for logger in list(self._loggers):
            try:
                logger.log_round(line)
            except Exception as error:  # network, disk, a library's own kinds
                log(WARNING, "%s shows no more rounds: %s", type(logger).__name__, error)
                self._loggers.remove(logger)

    def close(self) -> None:
        """Finish every logger."""
        for logger in self._loggers:
            try:
                logger.close()
            except Exception as error:
                log(WARNING, "%s did not close: %s", type(logger).__name__, error)


@contextmanager
def run_loggers(
    cfg: Settings,
    folder: Path,
    about: Mapping[str, Any],
    rounds_done: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Loggers]:
    """Yield the loggers of a run: TensorBoard where tensorboardX is installed, W&B where wanted.

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
    found: list[Logger] = []
    if cfg.log.wandb:
        found.append(WeightsAndBiases(folder, about))
    if tensorboard.installed():
        try:
            found.append(TensorBoard(folder / "tensorboard", rounds_done))
        except OSError as error:
            log(WARNING, "no event files for TensorBoard: %s", error)
    loggers = Loggers(found)
    try:
        yield loggers
    finally:
        loggers.close()
