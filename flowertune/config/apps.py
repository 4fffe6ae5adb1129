"""Remember where an app lies: a run sees only the copy that Flower installed."""

import json
import tomllib
from pathlib import Path
from typing import Any

from flowertune.base.files import write_atomically


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


def record_app(home: Path, app: str, folder: Path) -> bool:
    """Write down that ``app`` lies in ``folder``; False where that is known already."""
    known = _read(home)
    if known.get(app) == str(folder):
        return False
    known[app] = str(folder)
    write_atomically(_file(home), json.dumps(known, indent=2, sort_keys=True) + "\n")
    return True


def recorded_folder(home: Path, app: str) -> Path | None:
    """The folder that was recorded for ``app``, or None."""
    folder = _read(home).get(app)
    return Path(folder) if folder else None


def _file(home: Path) -> Path:
    return home / "flowertune" / "apps.json"


def _read(home: Path) -> dict[str, str]:
    try:
        known = json.loads(_file(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
