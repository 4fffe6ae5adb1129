"""The hook into Flower's own programs; a file with one line, installed beside flwr, calls it.

flwr has no plug-ins. Where Python runs ``flwr``, the command line gets one more command,
``profile``, and `flwr run` first looks at an app of ours: what a run would refuse after a minute is
said at once, and where the app lies is written down. Where Python runs a simulation, a ServerApp or
a worker of Ray, its log is kept readable; and a simulation starts of Ray what it needs. A SuperNode
looks for messages as often as there is a need, and keeps the process of an app of ours. A flwr that
brings a ``profile`` of its own keeps it, other apps are run as without this, and whatever goes
wrong here leaves flwr as it is.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from flowertune.base.imports import STAYS

TARGET, NAME, RUN = "flwr.cli.app", "profile", "run"
COMMAND_LINE = ("flwr", "flwr.exe")


def install(program: str) -> None:
    """Wait for flwr's command line to be imported; in Flower's other programs, mind the log."""
    if program in COMMAND_LINE:
        _once_imported(TARGET, lambda module: _each(module.app, register, look_first))
        return
    # Late, each: no program needs all of them.
    if program == "flower-superexec":
        from flowertune.deploy import kept_clients

        _once_imported(kept_clients.MODULE, kept_clients.keep_clients)
        return
    if program == "flower-supernode":
        from flowertune.deploy import polls

        _once_imported(polls.MODULE, polls.poll_often)
        return
    from flowertune.deploy import flower_log, ray_start

    flower_log.keep_readable()
    if program == "flwr-simulation":
        _once_imported(ray_start.BACKEND, ray_start.start_lean)
    if program == "default_worker.py":  # Ray's
        os.environ[STAYS] = "1"


def _each(app: Any, *changes: Callable[[Any], Any]) -> None:
    for change in changes:
        with suppress(Exception):
            change(app)


def register(flwr: Any) -> bool:
    """Add the command to a Typer app unless it has one of this name; return whether it was."""
    names = [_name(command) for command in flwr.registered_commands]
    names += [group.name for group in flwr.registered_groups]
    if NAME in names:
        return False
    # Late: every command of flwr runs this module, and only one needs the profiler.
    from flowertune.cli.profile import profile

    flwr.command(NAME)(profile)
    return True


def look_first(flwr: Any) -> bool:
    """Have a Typer app's ``run`` look at the app before it runs it; return whether it has one."""
    for command in flwr.registered_commands:
        if _name(command) == RUN:
            command.callback = _looking_first(command.callback)
            return True
    return False


def _name(command: Any) -> str:
    return command.name or getattr(command.callback, "__name__", "").replace("_", "-")


def _looking_first(run: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(run)
    def looks_first(*args: Any, **options: Any) -> Any:
        wrong, notes, connected = (), (), nullcontext()
        with suppress(Exception):
            # Late: this takes a part of a second, and other commands of flwr go without.
            from flowertune.deploy.before_run import as_connected, before_run

            connected = as_connected()
            findings = before_run(options)
            wrong, notes = findings.problems, findings.notes
        for sentence in (*notes, *wrong):
            print(f"{'error' if sentence in wrong else 'note'}: {sentence}", file=sys.stderr)
        if wrong:
            raise SystemExit(1)
        with connected:
            return run(*args, **options)

    return looks_first


def _once_imported(module: str, change: Callable[[ModuleType], Any]) -> None:
    # Where two paths lead to the folder of packages, Python runs the line in it twice.
    if not any(isinstance(f, _Finder) and f.module == module for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder(module, change))


class _Finder(MetaPathFinder):
    """Finds one module where it is, and has it changed once it has run."""

    def __init__(self, module: str, change: Callable[[ModuleType], Any]) -> None:
        self.module, self._change = module, change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        with suppress(Exception):
            sys.meta_path.remove(self)
            spec = find_spec(fullname)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, self._change)
            return spec
        return None


class _Loader(Loader):
    """Runs a module as its own loader would, and then has it changed."""

    def __init__(self, own: Loader, change: Callable[[ModuleType], Any]) -> None:
        self._own, self._change = own, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        with suppress(Exception):
            self._change(module)
