"""Prepare a run: every check that needs no model, and a folder of its own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import INFO
from pathlib import Path
from typing import IO

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import SettingsError, UserError
from flowertune.comms.nodes import NodeRegistry
from flowertune.config.app import App, read_app
from flowertune.config.checks import check_settings, client_problems
from flowertune.config.paths import local_path
from flowertune.config.results import results_root, run_folder
from flowertune.config.settings import ANEW, Settings
from flowertune.rules import lock
from flowertune.rules.provenance import Library, code_digest, installed_library
from flowertune.run.workers import in_simulation, replace_dead_workers


@dataclass(frozen=True)
class RunContext:
    """A run that may start: what it was asked for, who answered, and where it writes."""

    cfg: Settings
    app: App
    registry: NodeRegistry
    folder: Path
    library: Library
    differences: list[lock.Difference]


def app_folder(file: str) -> Path:
    """Return the folder of an app, which holds its pyproject.toml, from one of its modules."""
    return Path(file).resolve().parent.parent


def rule_violations(cfg: Settings, registry: NodeRegistry, own: Library) -> list[lock.Difference]:
    """Return every difference between this run and what is locked for its challenge."""
    static = lock.static_values(cfg)
    differences = lock.check_lock(
        static, len(registry.nodes), registry.partitions, registry.digests
    )
    libraries = sorted(registry.libraries, key=lambda library: library.sha256)
    return differences + lock.check_library(own, libraries)


def writable_folder(cfg: Settings, run_id: int) -> Path:
    """Return the folder to write to: a new one, or that of the run to go on with.

    Raises
    ------
    UserError
        If it cannot be written, or the run to go on with is not there.
    """
    if cfg.resume_from == ANEW:
        return run_folder(results_root(cfg, cfg.app_dir, os.environ), run_id)
    folder = local_path(cfg.resume_from, cfg.app_dir)
    if not folder.is_dir():
        raise UserError(
            f"resume-from is {cfg.resume_from!r}, and there is no folder {folder}; give a "
            f"run's folder (results/<run id>), or {ANEW!r} to start a new run."
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
def prepare_run(grid: Grid, context: Context, app_dir: Path) -> Iterator[RunContext]:
    """Check everything that can be checked without a model; hold the run's folder meanwhile.

    Raises
    ------
    UserError
        With the sentence to show, if a setting is wrong, no SuperNode answers, or the results
        folder cannot be written.
    """
    if in_simulation(grid):
        replace_dead_workers()
    cfg = check_settings(context.run_config, app_dir)
    app = read_app(app_dir)
    folder = writable_folder(cfg, context.run_id)
    with sole_writer(folder):
        log(INFO, "results: %s", folder)
        registry = NodeRegistry(code_sha256=code_digest(app_dir / app.package)).discover(grid)
        own = installed_library()
        differences = rule_violations(cfg, registry, own)
        log(INFO, lock.verdict(lock.static_values(cfg), differences))
        if problems := client_problems(cfg, len(registry.nodes)):
            raise SettingsError(problems)
        yield RunContext(cfg, app, registry, folder, own, differences)
