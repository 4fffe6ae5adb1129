"""Paths in the settings: which values are paths, and what relative ones are relative to."""

import os
from pathlib import Path

from flowertune.config.results import own_folder


def is_path(name: str) -> bool:
    """Whether a name in the settings is a path and not a hub id or a built-in name."""
    return name.startswith(("/", "./", "../", "~"))


def local_path(name: str, app_dir: Path) -> Path:
    """The absolute path of a path in the settings; a relative one starts at the app's folder.

    That is the installed copy if it holds the path, else the app's own folder, where files lie
    that Flower does not ship with an app.
    """
    path = Path(name).expanduser()
    if path.is_absolute() or (app_dir / path).exists():
        return (app_dir / path).resolve()
    own = own_folder(app_dir, os.environ) or app_dir
    return (own / path).resolve()
