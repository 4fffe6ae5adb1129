"""Prepare a run: every check that needs no model, and a folder of its own."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from logging import INFO
from pathlib import Path
from typing import IO, Any

from flwr.app import Context
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import SettingsError, UserError
from flowertune.base.files import write_json
from flowertune.comms.channel import look_often
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry
from flowertune.comms.run_settings import carry_settings
from flowertune.config.app import App, read_app
from flowertune.config.checks import check_settings, client_problems, supernodes_note
from flowertune.config.results import results_root, run_folder
from flowertune.config.settings import Settings
from flowertune.methods.registry import problems as method_problems
from flowertune.rules import lock, pinned
from flowertune.rules.app_files import app_files, app_record
from flowertune.rules.provenance import Library, code_digest, installed_library
from flowertune.run.failures import Ending
from flowertune.run.files import LOCK, RUN, now
from flowertune.run.live import Live
from flowertune.run.metadata import first_info
from flowertune.run.origin import (
    Origin,
    differing,
    origin_of,
    refuse_links,
    settings_of_run,
)
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
    run_id: int = 0  # Flower's
    origin: Origin | None = None  # the run to go on with
    app_files: Mapping[str, Any] = field(default_factory=lambda: app_record({}))


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


def sole_writer(folder: Path) -> IO[str]:
    """Return an open lock on a run's folder; the lock ends with the process.

    Raises
    ------
    UserError
        If a live run writes there, or the lock is no regular file.
    """
    path = folder / LOCK
    try:
        # A link would be followed, and a named pipe waited for.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.fdopen(os.open(path, flags, 0o666), "w")
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
    except OSError as error:
        raise UserError(
            f"{path} cannot be locked ({error.strerror}): a run locks a file of its own there; "
            "remove what is in its place."
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(
            f"another run is still writing to {folder}; stop it first (flwr stop <run id>)."
        ) from None
    os.utime(file.fileno())  # what is older in the folder is of an earlier process
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
    look_often(grid)
    app = read_app(app_dir)
    with ExitStack() as held:
        origin = origin_of(context.run_config, app_dir)
        if origin is not None:
            run_folder(origin.folder.parent, origin.folder.name)
            held.enter_context(sole_writer(origin.folder))
            refuse_links(origin.folder)
        cfg = check_settings(settings_of_run(context.run_config, app_dir), app_dir, method_problems)
        folder = origin.folder if origin else _new_folder(cfg, context.run_id, held)
        log(INFO, "results: %s", folder)
        ledger = Ledger(cfg.static.budget_mib)
        if origin is not None:
            _let_clients_know(grid, context.run_config, cfg, ledger)
        Live(folder).say("asking the SuperNodes which partitions they hold")
        with begun(folder, first_info(cfg, app, context.run_id) if origin is None else None):
            code = code_digest(app_dir / app.package)
            registry = NodeRegistry(code_sha256=code, ledger=ledger).discover(grid)
            own = installed_library()
            differences = rule_violations(cfg, registry, own)
            log(INFO, lock.verdict(lock.static_values(cfg), differences))
            if not differences:
                log(INFO, pinned.sentence(lock.static_values(cfg)))
            note = supernodes_note(cfg, len(registry.nodes))
            if note and in_simulation(grid):
                log(INFO, note)
            if problems := client_problems(cfg, len(registry.nodes)):
                raise SettingsError(problems)
        files = app_record(app_files(app_dir))
        run_id = context.run_id
        yield RunContext(cfg, app, registry, folder, own, differences, run_id, origin, files)


@contextmanager
def begun(folder: Path, about: Mapping[str, Any] | None) -> Iterator[None]:
    """Write run.json for a run that is new, and how it ended if it does not get any further.

    Parameters
    ----------
    about : Mapping[str, Any] | None
        What it says; None where another run goes on, which has a run.json.
    """
    if about is None:
        yield
        return
    end = Ending(lambda status, reason: write_json(
        folder / RUN, {**about, "status": status, "reason": reason, "ended": now()}
    ))  # fmt: skip
    write_json(folder / RUN, about)
    with end.noted(finished=None):
        yield


def _new_folder(cfg: Settings, run_id: int, held: ExitStack) -> Path:
    folder = run_folder(results_root(cfg, cfg.app_dir, os.environ), run_id)
    held.enter_context(sole_writer(folder))
    return folder


def _let_clients_know(grid: Grid, given: Mapping[str, Any], cfg: Settings, ledger: Ledger) -> None:
    """Send clients, with every message, what Flower's own settings do not say."""
    if changes := differing(given, cfg):
        log(
            INFO, "settings of the run that goes on, in place of this app's: %s",
            ", ".join(sorted(changes)),
        )  # fmt: skip
        carry_settings(grid, changes, ledger)
