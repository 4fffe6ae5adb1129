"""Start a run: every check that needs no model, and a folder of its own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import INFO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.comms.nodes import Roll, call_roll
from flowertune.config.app import APP_DIR, App, read_app
from flowertune.config.checks import ANEW, check_settings, clients_per_round, no_client
from flowertune.config.paths import local_path
from flowertune.config.results import results_root, run_folder
from flowertune.rules import lock, protected

if TYPE_CHECKING:
    from flowertune.run.training import Session


@dataclass(frozen=True)
class Opened:
    """A run that may start: what it was asked for, who answered, and where it writes."""

    cfg: dict[str, Any]
    app: App
    roll: Roll
    folder: Path
    differences: list[lock.Difference]


def held_against_the_lock(cfg: dict[str, Any], app: App, roll: Roll) -> list[lock.Difference]:
    """Return every difference between this run and what is locked for its challenge."""
    static, locked = lock.static_values(cfg), lock.locked_values()
    found = lock.differences(static, locked, len(roll.nodes), roll.partitions)
    if lock.digest(locked) != app.expected_sha256:
        found.append(
            lock.Difference("the digest of locked.json", lock.digest(locked), app.expected_sha256)
        )
    if roll.digests != {lock.digest(static)}:
        found.append(
            lock.Difference(
                "the digest that clients see", sorted(roll.digests), [lock.digest(static)]
            )
        )
    return found + [
        lock.Difference(f"the protected file {name}", "changed", "as rendered")
        for name in protected.changed()
    ]


def folder_of(cfg: dict[str, Any], run_id: int) -> Path:
    """Return the folder to write to: a new one, or that of the run to go on with.

    Raises
    ------
    UserError
        If it cannot be written, or the run to go on with is not there.
    """
    if cfg["resume-from"] == ANEW:
        return run_folder(results_root(cfg, APP_DIR, os.environ), run_id)
    folder = local_path(cfg["resume-from"])
    if not folder.is_dir():
        raise UserError(
            f"resume-from is {cfg['resume-from']!r}, and there is no folder {folder}; give a "
            f"run's folder (results/<run id>), or {ANEW!r} to start anew."
        )
    return run_folder(folder.parent, folder.name)


def sole_writer(folder: Path) -> IO[str]:
    """Return an open lock on a run's folder; the lock ends with the process.

    Raises
    ------
    UserError
        If a live run writes there.
    """
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(
            f"another run is still writing to {folder}; stop it first (flwr stop <run id>)."
        ) from None
    return file


@contextmanager
def opened(grid: Grid, context: Context) -> Iterator[Opened]:
    """Check everything that can be checked without a model; hold the run's folder meanwhile.

    Raises
    ------
    UserError
        With the sentence to show, if a setting is wrong, no SuperNode answers, the fraction
        selects no client, or the results folder cannot be written.
    """
    cfg = check_settings(context.run_config)
    app = read_app()
    folder = folder_of(cfg, context.run_id)
    with sole_writer(folder):
        log(INFO, "results: %s", folder)
        roll = call_roll(grid)
        found = held_against_the_lock(cfg, app, roll)
        log(INFO, lock.verdict(lock.static_values(cfg), found))
        clients = clients_per_round(cfg["strategy.fraction-train"], len(roll.nodes))
        if clients < 1:
            raise UserError(no_client(cfg["strategy.fraction-train"], len(roll.nodes)))
        if cfg["strategy.min-clients"] > clients:
            raise UserError(
                f"strategy.min-clients is {cfg['strategy.min-clients']}, and a round has "
                f"{clients} clients (strategy.fraction-train {cfg['strategy.fraction-train']} of "
                f"{len(roll.nodes)} SuperNodes); use at most {clients} (in [tool.flwr.app.config] "
                "of pyproject.toml), or a larger fraction."
            )
        yield Opened(cfg, app, roll, folder, found)


@contextmanager
def open_session(grid: Grid, context: Context) -> Iterator["Session"]:
    """Check everything that can be checked before a model is loaded, and start a run.

    Raises
    ------
    UserError
        As ``opened``.
    """
    # Late: they bring transformers, which a server that only averages models does without.
    from flowertune.base.quiet import hush
    from flowertune.run.training import Session

    hush()
    with opened(grid, context) as run:
        session = Session(run, grid)
        with session.recorded():
            yield session
