"""A run that `flwr run` was just typed for: Flower and Ray start before it has a folder."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from flowertune.base.files import flower_home
from flowertune.config.apps import app_id, last_start
from flowertune.run.files import RUN

PATIENCE = 180.0  # seconds after which a run that wrote nothing counts as one that did not start


def run_to_come(app: Path, root: Path, wait: Callable[[float], bool]) -> Path | None:
    """Return the folder of the run that is being started, once it is there; None if none is.

    A run that goes on writes into its old folder: the file ``run.json`` that was written after the
    command was typed is the one.

    Parameters
    ----------
    app : Path
        The app's own folder.
    root : Path
        Where its results are.
    wait : Callable[[float], bool]
        Told how many seconds ago the command was typed, for as long as the run has no folder; waits
        a moment, and returns whether to go on waiting.
    """
    typed = last_start(flower_home(os.environ), app_id(app) or "")
    while typed is not None and time.time() - typed < PATIENCE:
        written = {path.parent: path.stat().st_mtime for path in root.glob(f"*/{RUN}")}
        newest = max(written, key=lambda folder: written[folder], default=None)
        if newest is not None and written[newest] >= typed:
            return newest
        if not wait(time.time() - typed):
            return None
    return None
