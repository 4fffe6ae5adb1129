"""Read the settings that ``flwr run`` would hand to the app of a folder."""

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.config.checks import check_settings
from flowertune.config.settings import Settings


class UnreadableApp(UserError):
    """A folder holds no app, or one whose pyproject.toml cannot be read."""


def read_settings(
    app: Path,
    run_config: Sequence[str] | None,
    more: Callable[[Mapping[str, Any]], list[str]] = lambda run_config: [],
) -> Settings:
    """Return the flat, checked settings of the app in ``app`` with ``--run-config`` applied.

    Raises
    ------
    UserError
        If there is no app, ``run_config`` is malformed or names a setting the app does not have,
        or a setting is wrong; all wrong settings at once.
    """
    defaults = default_settings(app)
    changed = given_settings(run_config)
    unknown = [unknown_key(key, defaults) for key in changed if key not in defaults]
    if unknown:
        raise UserError(
            f"--run-config names {'; '.join(unknown)}: a setting must stand in "
            "[tool.flwr.app.config] of pyproject.toml before it can be changed."
        )
    return check_settings({**defaults, **changed}, app.resolve(), more)


def default_settings(app: Path) -> dict[str, Any]:
    """Return the flat ``[tool.flwr.app.config]`` of the app in ``app``, unchecked.

    Raises
    ------
    UnreadableApp
        If there is no app there, or its pyproject.toml cannot be read.
    """
    # Late: flwr takes long to import, and --help does without.
    from flwr.common.config import flatten_dict

    path = app / "pyproject.toml"
    try:
        toml = tomllib.loads(path.read_text("utf-8"))
        return dict(flatten_dict(toml["tool"]["flwr"]["app"]["config"]))
    except FileNotFoundError:
        raise UnreadableApp(
            f"{app.resolve()} has no pyproject.toml; run this in the app's folder or name it "
            "with --app."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise UnreadableApp(f"{path.resolve()} is not valid TOML: {error}.") from None
    except KeyError:
        raise UnreadableApp(
            f"{path.resolve()} has no table [tool.flwr.app.config], so it is not a FlowerTune "
            "app; run this in the app's folder or name it with --app."
        ) from None


def given_settings(run_config: Sequence[str] | None) -> dict[str, Any]:
    """Return what ``--run-config`` changes, by key, unchecked.

    Raises
    ------
    UserError
        If it is malformed, or flwr would drop a part of it.
    """
    # Late, as above.
    from flwr.common.config import parse_config_args

    given = list(run_config or [])
    try:
        changed = parse_config_args(given)
    except FileNotFoundError:
        raise UserError(f"--run-config is {given[0]!r}, and there is no such file.") from None
    except Exception as error:  # click's and tomli's own kinds
        text = " ".join(str(error).split())
        raise UserError(
            f"--run-config is {' '.join(given)!r}, which flwr refuses: {text}"
        ) from None
    if any(text.strip() for text in given) and not changed:
        raise UserError(
            f"--run-config is {' '.join(given)!r}, which holds no key=value; write "
            "\"num-server-rounds=50 model.name='/models/mine'\" or name a .toml file."
        )
    if dropped := _dropped(given):
        raise UserError(
            f"--run-config is {' '.join(given)!r}, of which flwr would drop {dropped!r}: give one "
            ".toml file, or key=value pairs whose texts have quotes (model.name='/models/mine')."
        )
    return changed


def _dropped(given: Sequence[str]) -> str:
    """Return what flwr passes over in silence: what is neither the one file nor a key=value."""
    if len(given) == 1 and given[0].endswith(".toml"):
        return ""
    pair = r"""\S+?=('[^']*'|"[^"]*"|\S+)"""
    return " ".join(re.sub(pair, " ", " ".join(given)).split())


def unknown_key(key: str, known: Mapping[str, Any]) -> str:
    """Return a key that is not known, with one that is like it."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"{key!r} (did you mean {near[0]!r}?)" if near else repr(key)
