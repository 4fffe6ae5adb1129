"""Everything that the page shows, read from a run's folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowertune.base.files import read_json
from flowertune.base.hashing import file_sha256
from flowertune.profiler.reading import Attempt, read_file
from flowertune.profiling.format import FILE as PROFILE
from flowertune.report.scores import Score, scores_of
from flowertune.report.split import Split
from flowertune.rules.checkpoint import WEIGHTS, saved_checkpoints
from flowertune.rules.manifest import FILE
from flowertune.run.files import RunFiles


@dataclass(frozen=True)
class Checkpoint:
    """A saved adapter.

    ``sha256`` and ``size`` (bytes) are those of its weights, "" and 0 where they are missing;
    ``as_saved`` is whether the manifest has the same sha256.
    """

    name: str
    round: int
    sha256: str
    size: int
    official: bool
    as_saved: bool


@dataclass(frozen=True)
class Facts:
    """A run, its checkpoints, and its settings that differ from the app's defaults.

    ``rows_visited`` is the share of all rows trained on up to the last checkpoint. ``changed``
    maps a setting to (the app's default, the run's value); it is None where no app is known.
    ``profile`` is empty where the run was not profiled. ``split`` says how its rows were dealt out,
    or why that cannot be drawn; None where that was evenly.
    """

    run: RunFiles
    checkpoints: list[Checkpoint]
    versions: Mapping[str, str]
    rows_visited: float | None
    changed: dict[str, tuple[Any, Any]] | None
    profile: list[Attempt] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    split: Split | str | None = None


def collect(
    run: RunFiles,
    defaults: Mapping[str, Any] | None,
    places: Iterable[Path] = (),
    split: Split | str | None = None,
) -> Facts:
    """Read a run's checkpoints, scores and profile; compare its settings with ``defaults``.

    Parameters
    ----------
    places : Iterable[Path]
        Folders in which the scorer may have been run.
    """
    manifests = {path.parent: read_json(path) or {} for path in run.folder.glob(f"peft_*/{FILE}")}
    checkpoints = [_checkpoint(folder, manifest) for folder, manifest in manifests.items()]
    newest = max(manifests.values(), key=_round_of, default={})
    settings = run.about.get("settings") or {}
    changed = None
    if defaults is not None and settings:
        changed = {
            key: (defaults.get(key), settings.get(key))
            for key in sorted({*defaults, *settings})
            if defaults.get(key) != settings.get(key)
        }
    return Facts(
        run=run,
        checkpoints=sorted(checkpoints, key=lambda checkpoint: checkpoint.round),
        versions=versions if isinstance(versions := newest.get("versions"), dict) else {},
        rows_visited=visited if isinstance(visited := newest.get("rows-visited"), float) else None,
        changed=changed,
        profile=read_file(run.folder / PROFILE),
        scores=scores_of(saved_checkpoints(run.folder), places),
        split=split,
    )


def _checkpoint(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    weights = folder / WEIGHTS
    exists = weights.is_file()
    sha256 = file_sha256(weights) if exists else ""
    return Checkpoint(
        name=folder.name,
        round=_round_of(manifest),
        sha256=sha256,
        size=weights.stat().st_size if exists else 0,
        official=manifest.get("official") is True,
        as_saved=exists and sha256 == manifest.get("adapter-sha256"),
    )


def _round_of(manifest: Mapping[str, Any]) -> int:
    number = manifest.get("round")
    return number if isinstance(number, int) else 0
