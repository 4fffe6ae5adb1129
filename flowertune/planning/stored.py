"""Shapes that an earlier plan worked out, by a digest of everything that they depend on."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flowertune.base.files import write_atomically
from flowertune.base.hashing import json_sha256
from flowertune.config.paths import is_path, local_path
from flowertune.config.settings import Settings
from flowertune.models.known import known_models
from flowertune.models.memory import Shapes
from flowertune.models.smollm2 import cache_folder
from flowertune.planning.architecture import Architecture
from flowertune.planning.communication import Traffic

_WAYS = ("down", "up", "counted")
_KEPT = 64  # plans; the oldest go first
_LIBRARY = Path(__file__).parent.parent
_ROOMS = ("planning", "models", "methods")
_PACKAGES = ("flowertune", "torch", "transformers", "peft")


def key_of(cfg: Settings, package: Path, supernodes: int = 0) -> str | None:
    """Return the digest that shapes, and what their method sends, are kept under.

    It covers all settings, the app's own code, the model's config, and the libraries. None where
    that cannot be known without the hub, or the model brings code of its own.

    Parameters
    ----------
    package : Path
        The folder of the app's Python package.
    supernodes : int
        How many the run will have.
    """
    config = _config(cfg)
    if config is None or cfg.model.trust_remote_code:
        return None
    return json_sha256(
        {
            "settings": dict(cfg),
            "supernodes": supernodes,
            "config": config,
            "app": _sources(package),
            "library": _sources(*(_LIBRARY / room for room in _ROOMS)),
            "versions": {name: version(name) for name in _PACKAGES},
        }
    )


def load(key: str | None) -> tuple[Architecture, Traffic] | None:
    """Return what is kept under a key; None where nothing (readable) is."""
    if key is None:
        return None
    try:
        kept = json.loads(_file(key).read_bytes())
        architecture = Architecture(
            shapes=Shapes(**kept["shapes"]),
            adapter={name: tuple(shape) for name, shape in kept["adapter"].items()},
            message_bytes=kept["message-bytes"],
        )
        traffic = {way: tuple(map(int, kept["traffic"][way])) for way in _WAYS}
        return architecture, Traffic(**traffic)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def save(key: str | None, architecture: Architecture, traffic: Traffic) -> None:
    """Keep both under a key. Where the cache cannot be written to, they are not kept."""
    if key is None:
        return
    kept = {
        "shapes": asdict(architecture.shapes),
        "adapter": architecture.adapter,
        "message-bytes": architecture.message_bytes,
        "traffic": asdict(traffic),
    }
    file = _file(key)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(kept))
        by_age = sorted(file.parent.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        pass


def _file(key: str) -> Path:
    return cache_folder(os.environ) / "plans" / f"{key}.json"


def _config(cfg: Settings) -> Any:
    """What the model's config says; None where only the hub knows."""
    name = cfg.model.name
    if name in known_models():
        return known_models()[name]
    if not is_path(name):
        return None
    try:
        return (local_path(name, cfg.app_dir) / "config.json").read_text("utf-8")
    except (OSError, ValueError):
        return None


def _sources(*folders: Path) -> Mapping[str, str]:
    """The contents of folders' Python and JSON files, by path."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(f): _text(f) for f in files if f.suffix in (".py", ".json")}


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError):
        return ""
