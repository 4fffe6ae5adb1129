"""The files of an app that travel with a run, and their digests: the method is in them."""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.hashing import json_sha256
from flowertune.base.text import one_line
from flowertune.config.results import is_sent_copy

PROJECT = "pyproject.toml"
_MADE_BY_PYTHON = "__pycache__"
# Flower writes it into the copy where it installs an app's dependencies for a run (uv).
_MADE_BY_FLOWER = "uv.lock"


def app_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file of an app that travels to SuperNodes, by its name.

    pyproject.toml is as Flower sends it: without comments, and without ``tool.flwr.federations``.
    So a folder and the copy of it that Flower sent give the same.

    Raises
    ------
    UserError
        If the folder holds no pyproject.toml, or Flower would not send it.
    """
    files = _sent(folder) if is_sent_copy(folder, os.environ) else _chosen(folder)
    files.pop(_MADE_BY_FLOWER, None)
    try:
        files[PROJECT] = project_as_sent(files[PROJECT])
    except KeyError:
        raise UserError(f"{folder} holds no {PROJECT}, so it is no app's folder.") from None
    except ValueError as error:
        raise UserError(f"{folder / PROJECT} is not valid TOML ({one_line(error)}).") from None
    return files


def app_record(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the sha256 of each file by its name, and that of all of them, as JSON."""
    digests = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    return {"files": digests, "sha256": json_sha256(digests)}


def changed_code(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of Python files that differ, given the sha256 of each by its name."""
    names = sorted(name for name in before.keys() | now.keys() if name.endswith(".py"))
    return [name for name in names if before.get(name) != now.get(name)]


def project_as_sent(content: bytes) -> bytes:
    """Return a pyproject.toml as Flower writes it into what it sends.

    Raises
    ------
    ValueError
        If it is no TOML in UTF-8.
    """
    import tomli_w  # late: a part of flwr, which what only reads a manifest does without

    project = tomllib.loads(content.decode("utf-8"))
    flower = project.get("tool", {}).get("flwr", {})
    if isinstance(flower, dict):
        flower.pop("federations", None)
    return tomli_w.dumps(project).encode("utf-8")


def _sent(folder: Path) -> dict[str, bytes]:
    """Everything in a copy that Flower sent, but for what Python puts there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _MADE_BY_PYTHON not in path.parts
    }


def _chosen(folder: Path) -> dict[str, bytes]:
    """What Flower would send of a folder."""
    # Late: Flower's command line takes half a second to import, and a sent copy does without.
    from flwr.cli.build import get_filtered_fab_paths
    from flwr.cli.utils import collect_files, filter_paths_for_publish

    try:
        found = filter_paths_for_publish(collect_files(folder.resolve()))
        project = found.get(PROJECT, b"")
        text = project if isinstance(project, bytes) else project.read_bytes()
        names = get_filtered_fab_paths(found, tomllib.loads(text.decode("utf-8")))
    except (ValueError, OSError) as error:
        raise UserError(
            f"{folder} holds files that Flower cannot send: {one_line(error)}"
        ) from None
    files = {name: found[name] for name in names}
    if PROJECT in found:
        files[PROJECT] = found[PROJECT]
    return {n: f if isinstance(f, bytes) else f.read_bytes() for n, f in files.items()}
