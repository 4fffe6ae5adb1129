"""Two runs side by side: their settings where they differ, and what came of them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flowertune.base.text import duration
from flowertune.report.scores import NONE, scores_of
from flowertune.rules.checkpoint import saved_checkpoints
from flowertune.run.files import RunFiles
from flowertune.run.origin import KEY, equal

Row = tuple[str, str, str]
# They are another's in every run and say nothing of it.
OF_THE_PLACE = (KEY, "results-dir")


def compare(one: RunFiles, other: RunFiles, places: Iterable[Path]) -> list[Row]:
    """Return the lines of a table: what it is, in one run, in the other.

    Parameters
    ----------
    places : Iterable[Path]
        Folders in which the scorer may have been run.
    """
    rows: list[Row] = [("run", _name(one), _name(other))]
    rows += _settings(one.about.get("settings") or {}, other.about.get("settings") or {})
    left, right = _outcome(one), _outcome(other)
    rows += [(name, left[name], right[name]) for name in left]
    folders = list(places)
    first, second = _scores(one, folders), _scores(other, folders)
    names = sorted({*first, *second})
    return rows + [(name, first.get(name, NONE), second.get(name, NONE)) for name in names]


def _settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    return [
        (key, _value(before, key), _value(after, key))
        for key in sorted({*before, *after} - {*OF_THE_PLACE})
        if not (key in before and key in after and equal(before[key], after[key]))
    ]


def _outcome(run: RunFiles) -> dict[str, str]:
    loss, seconds = run.last.get("train-loss"), sum(line.get("seconds", 0) for line in run.rounds)
    mib = run.last.get("total-mib")
    return {
        "status": run.status,
        "official": "yes" if run.verdict == "official" else "no",
        "rounds": f"{run.last.get('round', 0)} of {run.planned}",
        "loss": NONE if loss is None else f"{loss:.4f}",
        "MiB": NONE if mib is None else f"{mib:,.1f}",
        "rejected replies": f"{sum(line.get('failed') or 0 for line in run.rounds):,}",
        "time of all rounds": duration(seconds) if run.rounds else NONE,
    }


def _scores(run: RunFiles, places: list[Path]) -> dict[str, str]:
    """Return the scores of the last checkpoint that has some, by what they are."""
    for checkpoint in reversed(saved_checkpoints(run.folder)):
        if found := scores_of([checkpoint], places):
            return {
                f"{score.suite}: {score.name}": score.tuned
                + (f" ({score.rows})" if "partial" in score.rows else "")
                for score in found
                if score.tuned != NONE
            }
    return {}


def _name(run: RunFiles) -> str:
    return str(run.about.get("run-id", run.folder.name))


def _value(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else NONE
