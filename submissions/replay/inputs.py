"""The organizer's own model and rows, and under which paths an app finds them in the sandbox.

An app names its model and its rows as its settings do. A hub id is found in a hub's cache, a path
at that path, the built-in model in the library's cache; rows are given by the library itself.
"""

import posixpath
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.sandbox.shown import shown_paths
from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.config.paths import is_path
from flowertune.models import smollm2

HERE = "/replay"  # in the sandbox, where everything is shown that is read
APP, DATA, HUB, CACHE, GIVEN = (f"{HERE}/{x}" for x in ("app", "data", "hub", "cache", "given"))
WORK = "/tmp/job"  # in the sandbox, which can be written
_COMMIT = re.compile("[0-9a-f]{40}")
_NO_COMMIT = "0" * 40


@dataclass
class Inputs:
    """What the sandbox shows, read-only, by the path inside; and what to say about it."""

    shown: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    data: str = DATA
    data_bytes: int = 0


def find_inputs(
    settings: Mapping[str, Any],
    app: Path,
    scratch: Path,
    model: Path | None,
    data: Path | None,
) -> Inputs:
    """Return where model and rows lie on this machine, by where they appear in the sandbox.

    Parameters
    ----------
    settings
        The run's.
    app
        A private copy of the app, in which folders to show something in are made.
    scratch
        Where files are written that the sandbox shows.
    model, data
        What the organizer gave; without it a hub id is looked up in the hub, or in its cache here.

    Raises
    ------
    UserError
        One of them cannot be had.
    """
    found = Inputs()
    _show_model(found, settings, app, scratch, model)
    _show_rows(found, settings, app, scratch, data)
    return found


def _show_model(
    found: Inputs, settings: Mapping[str, Any], app: Path, scratch: Path, given: Path | None
) -> None:
    name, revision = str(settings["model.name"]), str(settings["model.revision"])
    if given is not None and not given.is_dir():
        raise UserError(f"--model {given} is no folder: give the base model's, {name!r}.")
    if name == smollm2.NAME:
        folder = given or smollm2.fetch()
        inside = f"{CACHE}/models/{smollm2.model_folder({smollm2.CACHE: CACHE}).name}"
    elif is_path(name):
        if given is None:
            raise UserError(
                f"The base model is {name!r} on the participant's machine: give your own copy of "
                "it with --model."
            )
        folder, inside = given, _place(name, app, "model.name")
    else:
        folder = given or _of_hub(name, revision)
        root = f"{HUB}/models--{name.replace('/', '--')}"
        commit = revision if _COMMIT.fullmatch(revision) else _commit_of(folder)
        inside = f"{root}/snapshots/{commit}"
        reference = scratch / "hub-reference"
        reference.write_text(commit)
        reference.chmod(0o644)
        if revision != commit:
            found.shown[f"{root}/refs/{revision}"] = str(reference)
    found.shown |= _files(inside, folder, scratch)


def _show_rows(
    found: Inputs, settings: Mapping[str, Any], app: Path, scratch: Path, given: Path | None
) -> None:
    name, revision = str(settings["static.dataset.name"]), str(settings["static.dataset.revision"])
    if given is None:
        given = _rows_of(name, revision, app, scratch, found)
    elif not given.exists():
        raise UserError(f"--data {given} does not exist: give the rows of {name!r}.")
    given = given.resolve()
    found.shown |= _files(DATA, given, scratch)
    paths = [given] if given.is_file() else [p for p in given.rglob("*") if p.is_file()]
    found.data_bytes = sum(path.stat().st_size for path in paths)


def _rows_of(name: str, revision: str, app: Path, scratch: Path, found: Inputs) -> Path:
    # Late: it takes seconds to import.
    from flowertune.data.rows import is_local, load_rows

    if is_local(name):
        own = Path(posixpath.normpath(app / name))
        if not Path(name).is_absolute() and own.is_relative_to(app) and own.exists():
            found.notes.append(
                f"the training rows are the bundle's own file {name!r}; give yours with --data"
            )
            return own
        raise UserError(
            f"The training rows are {name!r} on the participant's machine: give your own copy of "
            "them with --data."
        )
    rows = load_rows(name, revision, app)
    target = scratch / "rows"
    rows.save_to_disk(str(target))
    return target


def _of_hub(name: str, revision: str) -> Path:
    # Late: it takes a part of a second to import.
    from huggingface_hub import snapshot_download

    try:
        there = not hub.reachable()
        return Path(snapshot_download(name, revision=revision, local_files_only=there))
    except Exception as error:  # the HTTP library raises many kinds
        raise UserError(
            f"The base model is {name!r} at {revision!r}, and {hub.why_not(error)}: give its "
            "folder with --model."
        ) from None


def _commit_of(folder: Path) -> str:
    return folder.name if _COMMIT.fullmatch(folder.name) else _NO_COMMIT


def _files(inside: str, given: Path, scratch: Path) -> dict[str, str]:
    """Show a file or folder so that another user can read it, which a program may run as.

    A folder is shown file by file where it holds links, as the hub's cache does, or what only its
    owner may read; of a file that only its owner may read, a copy is shown.
    """
    given = given.resolve()
    below = [given, *given.rglob("*")]
    plain = all(not path.is_symlink() and _for_all(path) for path in below)
    if plain:
        return {inside: str(given)}
    shown = {}
    for number, path in enumerate(p for p in below if p.is_file()):
        source = path.resolve()
        if not _for_all(source):
            copy = scratch / "readable" / f"{len(inside)}-{number}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o644)
            source = copy
        name = path.relative_to(given).as_posix()
        shown[inside if path == given else f"{inside}/{name}"] = str(source)
    return shown


def _for_all(path: Path) -> bool:
    mode = path.stat().st_mode
    return mode & 0o005 == 0o005 if path.is_dir() else bool(mode & 0o004)


def _place(name: str, app: Path, key: str) -> str:
    """Return the path that a path in the settings has inside; make room for it in the app."""
    if name.startswith("~"):
        name = WORK + name.partition("/")[1] + name.partition("/")[2]
    inside = posixpath.normpath(posixpath.join(APP, name))
    if inside.startswith(f"{APP}/"):
        (app / inside.removeprefix(f"{APP}/")).mkdir(parents=True, exist_ok=True)
        return inside
    parts = Path(inside).parts
    taken = [*shown_paths().binds, "/proc", "/dev", "/etc", "/bin", "/lib", "/sbin", HERE]
    if len(parts) < 3 or any(Path(inside).is_relative_to(path) for path in taken):
        raise UserError(
            f"{key} is {name!r}, a path that the sandbox itself needs; the run cannot be replayed."
        )
    return inside
