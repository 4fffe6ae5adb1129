"""Remember the folder of an app: a run sees only the copy that Flower installed."""

import json
import time
import tomllib
from pathlib import Path
from typing import Any

from flowertune.base.files import write_json


def app_id(app_dir: Path) -> str | None:
    """``publisher/project-name`` of the app in this folder, or None where there is no app."""
    project = read_project(app_dir)
    name = project.get("project", {}).get("name")
    publisher = project.get("tool", {}).get("flwr", {}).get("app", {}).get("publisher")
    return f"{publisher}/{name}" if name and publisher else None


def read_project(app_dir: Path) -> dict[str, Any]:
    """The content of the folder's pyproject.toml; empty where there is none that can be read."""
    try:
        return tomllib.loads((app_dir / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}


def record_app(home: Path, app: str, folder: Path) -> tuple[bool, Path | None]:
    """Write down that ``app`` lies in ``folder``.

    Returns
    -------
    tuple[bool, Path | None]
        Whether that is new, and the other folder with an app of this id that was known so far.
    """
    known = _read(_file(home))
    former = known.get(app)
    if former == str(folder):
        return False, None
    known[app] = str(folder)
    write_json(_file(home), known)
    other = former is not None and app_id(Path(former)) == app
    return True, Path(former) if former and other else None


def recorded_apps(home: Path) -> dict[str, Path]:
    """The folders that were recorded, by the app's id."""
    return {app: Path(folder) for app, folder in _read(_file(home)).items()}


def recorded_folder(home: Path, app: str) -> Path | None:
    """The folder that was recorded for ``app``, or None."""
    folder = _read(_file(home)).get(app)
    return Path(folder) if folder else None


def record_start(home: Path, app: str) -> None:
    """Write down that `flwr run` was just typed for ``app``: its run's folder comes much later."""
    write_json(_starts(home), {**_read(_starts(home)), app: time.time()})


def last_start(home: Path, app: str) -> float | None:
    """When `flwr run` was last typed for ``app`` (seconds since 1970), or None."""
    seconds = _read(_starts(home)).get(app)
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _starts(home: Path) -> Path:
    return home / "flowertune" / "starts.json"


def _file(home: Path) -> Path:
    return home / "flowertune" / "apps.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
