"""Weights & Biases: a run there for a run here, for those who use it."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.loggers.numbers import numbers_of

SETTING = "log.wandb"


class WeightsAndBiases:
    """A run of wandb; project, entity and mode are those of wandb's own environment variables.

    Raises
    ------
    UserError
        If wandb is not installed, or does not start.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(
                f"{SETTING} is true, but wandb is not installed; pip install wandb, or set it to "
                "false."
            )
        wandb = importlib.import_module("wandb")
        try:
            self._run = wandb.init(
                id=str(about["run-id"]),
                name=f"{about['name']} {about['run-id']}",
                dir=str(folder),
                config=dict(about["settings"]),
                # a run that goes on after a kill stays the same run there
                resume="allow",
            )
        except Exception as error:  # wandb has many kinds; none of them is a reason to train
            reason = " ".join(str(error).split())[:200].rstrip(".")
            raise UserError(
                f"{SETTING} is true, but wandb does not start ({reason}); run `wandb login`, set "
                f"WANDB_MODE=offline, or set {SETTING} to false."
            ) from error

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass on a round's numbers."""
        self._run.log(numbers_of(line), step=line["round"])

    def close(self) -> None:
        """Say that the run has ended."""
        self._run.finish()
