"""Everything the page tells, read from a run's folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowertune.base.hashing import file_sha256
from flowertune.profiler.reading import Sitting, read_file
from flowertune.profiling.format import FILE as PROFILE
from flowertune.rules.manifest import FILE
from flowertune.run.files import Recorded

WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A saved adapter; ``sha256`` is that of the file, ``as_saved`` whether the manifest agrees."""

    name: str
    round: int
    sha256: str
    size: int
    official: bool
    as_saved: bool


@dataclass(frozen=True)
class Facts:
    """A run, its checkpoints, and the settings that differ from the app's own.

    ``rows_visited`` is the share of all rows trained on up to the last checkpoint. ``changed``
    maps a setting to (the app's value, the run's); it is None where no app is known. ``profile``
    is empty where the run was not profiled.
    """

    run: Recorded
    checkpoints: list[Checkpoint]
    versions: Mapping[str, str]
    rows_visited: float | None
    changed: dict[str, tuple[Any, Any]] | None
    profile: list[Sitting] = field(default_factory=list)


def collect(run: Recorded, defaults: Mapping[str, Any] | None) -> Facts:
    """Read the checkpoints of a run and compare its settings with ``defaults``."""
    manifests = {path.parent: _manifest(path) for path in run.folder.glob(f"peft_*/{FILE}")}
    saved = [checkpoint(folder, manifest) for folder, manifest in manifests.items()]
    newest = max(manifests.values(), key=lambda manifest: manifest.get("round", 0), default={})
    settings = run.about.get("settings") or {}
    changed = None
    if defaults is not None and settings:
        keys = sorted(set(defaults) | set(settings))
        changed = {
            key: (defaults.get(key), settings.get(key))
            for key in keys
            if defaults.get(key) != settings.get(key)
        }
    return Facts(
        run=run,
        checkpoints=sorted(saved, key=lambda found: found.round),
        versions=newest.get("versions", {}),
        rows_visited=newest.get("rows-visited"),
        changed=changed,
        profile=read_file(run.folder / PROFILE),
    )


def checkpoint(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    """Return what is to be said of one checkpoint folder."""
    weights = folder / WEIGHTS
    there = weights.is_file()
    found = file_sha256(weights) if there else ""
    return Checkpoint(
        name=folder.name,
        round=int(manifest.get("round", 0)),
        sha256=found,
        size=weights.stat().st_size if there else 0,
        official=bool(manifest.get("official")),
        as_saved=there and found == manifest.get("adapter-sha256"),
    )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
