"""One run after the other in a process that keeps app, model and rows from run to run."""

import gc
import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from flowertune.client.load import load_app, load_server
from flowertune.compare.grid import PLACES, Cell
from flowertune.compare.local_grid import LocalGrid
from flowertune.run.files import RunFiles, read_run
from flowertune.run.find import run_folders
from flowertune.run.state import complete_states

FINISHED = "finished"
_one_at_a_time = threading.Lock()


def run_of(folder: Path) -> RunFiles | None:
    """Return the run in a cell's folder, the one that started last; None where there is none.

    Raises
    ------
    UnreadableRun
        If its files are damaged.
    """
    runs = run_folders(folder)
    return read_run(runs[-1]) if runs else None


def is_finished(folder: Path) -> bool:
    """Whether the run in a cell's folder has ended well."""
    run = run_of(folder)
    return run is not None and run.status == FINISHED


def do_run(app: Path, cell: Cell, folder: Path) -> RunFiles:
    """Do a run, or what is left of it, and return it; a finished one is returned as it is.

    The app's own ServerApp and ClientApp do it, with what this process has loaded for earlier runs.
    A run that was stopped goes on from its last state; one without a state begins anew.

    Parameters
    ----------
    app : Path
        The app's folder.
    folder : Path
        The cell's folder: the run's own lies in it.

    Raises
    ------
    UserError
        With the sentence that the run ends with.
    """
    known = run_of(folder)
    if known is not None and known.status == FINISHED:
        return known
    settings: dict[str, Any] = {**cell.settings, PLACES[0]: str(folder.resolve())}
    if known is not None and complete_states(known.folder):
        settings[PLACES[1]] = str(known.folder.resolve())
    else:
        shutil.rmtree(folder, ignore_errors=True)
    with _one_at_a_time:
        try:
            _run(app, settings, cell)
        finally:
            # A run is a circle of objects, and the start of the next one keeps for good whatever
            # is not collected by then (gc.freeze of base.imports).
            gc.collect()
    done = run_of(folder)
    assert done is not None  # a run that ends without an error has written its files
    return done


def _run(app: Path, settings: Mapping[str, Any], cell: Cell) -> None:
    # Flower's messages want to know the run and the node that they belong to.
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    client, server = load_app(app), load_server(app)
    grid = LocalGrid(client, dict(settings), cell.partitions, cell.of)
    # Clients keep their files under it: another one in every process that works on the run. It
    # travels with every message, so all have as many digits.
    number = 10**17 + secrets.randbelow(9 * 10**17)
    context = Context(
        run_id=number, node_id=0, node_config={}, state=RecordDict(), run_config=dict(settings)
    )
    server(grid=grid, context=context)
