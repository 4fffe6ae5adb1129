"""``flwr profile``: give flwr's command line one more command, without touching flwr.

flwr has no plug-ins. A file with one line, which installing this library puts beside flwr, has
Python run ``install`` when it starts as ``flwr``; the command is added as soon as flwr has set up
its own. A flwr that brings a ``profile`` of its own keeps it, and whatever goes wrong here leaves
flwr as it is.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

TARGET, NAME = "flwr.cli.app", "profile"


def install() -> None:
    """Wait for flwr's command line to be imported."""
    sys.meta_path.insert(0, _Finder())


def register(flwr: Any) -> bool:
    """Add the command to a Typer app unless it has one of this name; return whether it was."""
    names = [
        command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        for command in flwr.registered_commands
    ]
    names += [group.name for group in flwr.registered_groups]
    if NAME in names:
        return False
    # Late: every command of flwr runs this module, and only one needs the profiler.
    from flowertune.cli.profile import CONTEXT, profile

    flwr.command(NAME, context_settings=CONTEXT)(profile)
    return True


class _Finder(MetaPathFinder):
    """Finds one module where it is, and has the command added once it has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != TARGET:
            return None
        with suppress(Exception):
            sys.meta_path.remove(self)
            spec = find_spec(fullname)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
            return spec
        return None


class _Loader(Loader):
    """Runs a module as its own loader would, and then adds the command."""

    def __init__(self, own: Loader) -> None:
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._own.exec_module(module)
        with suppress(Exception):
            register(module.app)
