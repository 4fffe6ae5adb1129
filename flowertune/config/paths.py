"""Paths in the settings: which values are paths, and what relative ones are relative to."""

import os
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.config.results import is_sent_copy, own_folder


def is_path(name: str) -> bool:
    """Whether a name in the settings is a path and not a hub id or a built-in name."""
    return name.startswith(("/", "./", "../", "~"))


def local_path(name: str, app_dir: Path) -> Path:
    """Return the absolute path of a path in the settings, which need not exist.

    A relative one starts at the folder of the app that the participant edits, in every command
    and in both engines: at ``app_dir`` where that is such a folder; else, in a run, which sees only
    the copy that Flower sent, at the folder that ``own_folder`` finds. On a machine that has no
    such folder a file comes from the copy.

    Raises
    ------
    UserError
        If the path is relative, the participant's folder is not on this machine, and the copy has
        no such file: Flower sends single files of a few types, so a folder in it has gaps.
    """
    path = Path(name).expanduser()
    own = None if path.is_absolute() else own_folder(app_dir, os.environ)
    if own is not None:
        return (own / path).resolve()
    found = (app_dir / path).resolve()
    if not path.is_absolute() and is_sent_copy(app_dir, os.environ) and not found.is_file():
        raise UserError(
            f"{name!r} in the settings is relative to the app's folder, which is not on this "
            "machine, and no such file was sent with the app; give an absolute path of this "
            "machine, or, for a model or a dataset, a hub id."
        )
    return found
