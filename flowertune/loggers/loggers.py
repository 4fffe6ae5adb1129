"""All loggers of a run, as one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import WARNING
from pathlib import Path
from typing import Any, Protocol

from flwr.common import log

from flowertune.config.settings import Settings
from flowertune.loggers.tensorboard import TensorBoard
from flowertune.loggers.wandb import WeightsAndBiases


class Logger(Protocol):
    """Shows the numbers of rounds somewhere."""

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass on a round's numbers (a line of rounds.jsonl)."""
        ...

    def close(self) -> None:
        """Finish."""
        ...


class Loggers:
    """Several loggers as one. A logger that fails is dropped with a warning; the run goes on."""

    def __init__(self, loggers: list[Logger]) -> None:
        self._loggers = loggers

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass a line of rounds.jsonl on to every logger."""
        for logger in list(self._loggers):
            try:
                logger.log_round(line)
            except Exception as error:  # network, disk, a library's own exceptions
                log(WARNING, "%s is dropped and shows no more rounds: %s", _name(logger), error)
                self._loggers.remove(logger)

    def close(self) -> None:
        """Finish every logger."""
        for logger in self._loggers:
            try:
                logger.close()
            except Exception as error:
                log(WARNING, "%s could not be closed: %s", _name(logger), error)


@contextmanager
def run_loggers(
    cfg: Settings,
    folder: Path,
    about: Mapping[str, Any],
    rounds_done: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Loggers]:
    """Yield the loggers of a run: TensorBoard, and Weights & Biases where ``log.wandb`` is true.

    Parameters
    ----------
    folder : Path
        The run's folder; event files go into ``tensorboard/`` in it.
    about : Mapping
        The content of run.json: run-id, name and settings are used.
    rounds_done : Sequence
        The lines of the rounds finished before, in a run that is resumed.

    Raises
    ------
    UserError
        If ``log.wandb`` is true and wandb is not installed or does not start.
    """
    loggers: list[Logger] = []
    if cfg.log.wandb:
        loggers.append(WeightsAndBiases(folder, about))
    try:
        loggers.append(TensorBoard(folder / "tensorboard", rounds_done))
    except OSError as error:
        log(WARNING, "no event files for TensorBoard: %s", error)
    together = Loggers(loggers)
    try:
        yield together
    finally:
        together.close()


def _name(logger: Logger) -> str:
    return type(logger).__name__
