"""The scores of a run's checkpoints, found where the scorer puts them by default."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.files import read_json
from flowertune.rules.checkpoint import checkpoint_digest, scores_folder

RESULTS = "results.json"
NONE = "-"


@dataclass(frozen=True)
class Score:
    """One line of a result: a set, or the average over all sets; percentages as text.

    ``notes`` is what keeps the number from being one of a leaderboard.
    """

    checkpoint: str
    suite: str
    name: str
    rows: str
    base: str
    tuned: str
    interval: str
    difference: str
    notes: str


def scores_of(checkpoints: Iterable[Path], places: Iterable[Path]) -> list[Score]:
    """Return the scores of checkpoints, in the order given.

    Parameters
    ----------
    checkpoints : Iterable[Path]
        Their folders; one that is not whole has no scores.
    places : Iterable[Path]
        Folders in which the scorer may have been run.
    """
    found = []
    # Two names of one folder are one place.
    folders = list(dict.fromkeys(place.resolve() for place in places))
    for checkpoint in checkpoints:
        try:
            below = scores_folder(checkpoint_digest(checkpoint))
        except OSError:
            continue
        for place in folders:
            for file in sorted((place / below).glob(f"*/{RESULTS}")):
                found += _lines(checkpoint.name, read_json(file) or {})
    return found


def _lines(checkpoint: str, results: Mapping[str, Any]) -> list[Score]:
    """Return the lines of a results.json; whoever wrote it, a part that is not there is none."""
    sets = _table(results, "sets")
    lines = []
    for name, entry in sets.items():
        if not isinstance(entry, dict):
            continue
        rows = f"{entry.get('rows', NONE)}" + ("" if entry.get("full") is True else ", partial")
        lines.append(_line(checkpoint, results, str(entry.get("title", name)), rows, entry))
    if len(sets) > 1 and (average := _table(results, "average")):
        lines.append(_line(checkpoint, results, "average", "", average))
    return lines


def _line(
    checkpoint: str, results: Mapping[str, Any], name: str, rows: str, entry: Mapping[str, Any]
) -> Score:
    scores = _table(entry, "scores")
    tuned = _table(scores, "checkpoint")
    bounds = tuned.get("interval-95")
    unofficial, deviations = results.get("unofficial"), results.get("deviations")
    notes = [*(["unofficial"] if unofficial else []), *_texts(deviations)]
    return Score(
        checkpoint=checkpoint,
        suite=str(results.get("suite", NONE)),
        name=name,
        rows=rows,
        base=str(_table(scores, "base").get("score", NONE)),
        tuned=str(tuned.get("score", NONE)),
        interval=" to ".join(_texts(bounds)) or NONE,
        difference=str(_table(entry, "difference").get("points", NONE)),
        notes="; ".join(notes),
    )


def _table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = values.get(key)
    return inner if isinstance(inner, dict) else {}


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []
