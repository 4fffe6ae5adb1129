"""Weights & Biases, for those who use it: one of its runs for each run."""

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.loggers.scalars import round_scalars

SETTING = "log.wandb"


class WeightsAndBiases:
    """A run of wandb; its own environment variables name the project, the entity and the mode.

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
                # A run that is resumed stays the same run there.
                resume="allow",
            )
        except Exception as error:  # of many types, and none of them is a reason to train without
            reason = one_line(error).rstrip(".")
            raise UserError(
                f"{SETTING} is true, but wandb does not start ({reason}); run `wandb login`, set "
                f"WANDB_MODE=offline, or set {SETTING} to false."
            ) from error

    def log_round(self, line: Mapping[str, Any]) -> None:
        """Pass on a round's numbers."""
        self._run.log(round_scalars(line), step=line["round"])

    def close(self) -> None:
        """End the run."""
        self._run.finish()
