"""The app in a folder, loaded as Flower would load it."""

import importlib
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from flwr.serverapp import ServerApp

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.client.app import ClientApp
from flowertune.config.app import read_app
from flowertune.methods.registry import method_server


def load_app(folder: Path) -> ClientApp:
    """Return the ClientApp that the folder's pyproject.toml names, with the functions it has.

    Raises
    ------
    UserError
        If there is none, it is no FlowerTune app, or its modules cannot be imported.
    """
    app, what = _component(folder, "clientapp")
    if not isinstance(app, ClientApp):
        raise UserError(f"{what} was not made by flowertune.client_app.")
    return app


def load_server(folder: Path) -> ServerApp:
    """Return the ServerApp that the folder's pyproject.toml names.

    Raises
    ------
    UserError
        If there is none, or its modules cannot be imported.
    """
    app, what = _component(folder, "serverapp")
    if not isinstance(app, ServerApp):
        raise UserError(f"{what} is no ServerApp of Flower.")
    return app


def load_strategy(folder: Path) -> Callable[[Any, dict[int, int], int], Any]:
    """Return ``strategy_of`` of the app's strategy.py; the library's choice where it has none."""
    module = f"{read_app(folder).package}.strategy"
    with suppress(ImportError, AttributeError):
        return importlib.import_module(module).strategy_of
    return method_server


def _component(folder: Path, kind: str) -> tuple[Any, str]:
    path = folder.resolve() / "pyproject.toml"
    try:
        toml = tomllib.loads(path.read_text("utf-8"))
        module, _, name = toml["tool"]["flwr"]["app"]["components"][kind].partition(":")
    except (OSError, KeyError, AttributeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} names no {kind} ({one_line(error)}).") from None
    _forget_others(module.partition(".")[0], path.parent)
    # As Flower does: what lies in the folder comes before what is installed under its name.
    if sys.path[:1] != [str(path.parent)]:
        sys.path.insert(0, str(path.parent))
    try:
        app = getattr(importlib.import_module(module), name)
    except Exception as error:  # the app is its author's and may raise anything
        raise UserError(
            f"{module}:{name}, the {kind} of {path}, cannot be imported "
            f"({type(error).__name__}: {one_line(error)})."
        ) from error
    return app, f"{module}:{name} of {path}"


def _forget_others(package: str, folder: Path) -> None:
    """Let go of an app of the same package that lies in another folder."""
    loaded = [name for name in sys.modules if name.partition(".")[0] == package]
    file = getattr(sys.modules.get(package), "__file__", None)
    if loaded and file and Path(file).resolve().parent.parent != folder:
        for name in loaded:
            del sys.modules[name]
        importlib.invalidate_caches()
