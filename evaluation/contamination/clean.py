"""Scores without the rows that are also training rows, and what to say of them."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from evaluation import uncertainty
from evaluation.rounding import average
from flowertune.base.text import counted


def clean_rows(overlap: Mapping[str, Any]) -> list[int]:
    """Return the numbers of a set's rows that are not among the training rows."""
    out = {match["row"] for match in overlap["overlapping-rows"]}
    return [row for row in range(overlap["rows"]) if row not in out]


def averages(sets: Sequence[Mapping[str, Any]], models: Sequence[str]) -> dict[str, Any] | None:
    """Return the mean of the clean scores, as `report.averages` makes it of the official ones.

    None where a set has no clean rows.

    Args:
        sets: what the report holds of each set, with "scores" by model.
        models: whose scores they are.
    """
    if any(one["scores"] is None for one in sets):
        return None
    means = {}
    for model in models:
        scores = [one["scores"][model] for one in sets]
        bounds = [(float(low), float(high)) for low, high in (s["interval-95"] for s in scores)]
        mean = uncertainty.mean_interval([float(score["score"]) for score in scores], bounds)
        means[model] = {
            "score": str(average(Decimal(score["score"]) for score in scores)),
            "interval-95": [f"{bound:.2f}" for bound in mean],
        }
    return means


def sentences(found: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """Return what to say of a report under a table, one sentence each.

    Args:
        found: the report of `check.compare`.
        titles: of the sets, by name.
    """
    if not found["checked"]:
        return [f"Contamination not checked: {found['reason']}."]
    training = found["training"]
    name = training.get("path") or training["file"]
    at = f" at {training['revision']}" if "revision" in training else ""
    against = f"{counted(training['rows'], 'training row')} of {name}{at}"
    touched = [
        f"{titles[name]} official {one['rows']:,} / clean {one['clean']:,} "
        f"({one['exact']:,} exact, {one['n-gram']:,} by a {found['n-gram']}-gram)"
        for name, one in found["sets"].items()
        if one["overlapping"]
    ]
    if not touched:
        return [f"Contamination: no row is among the {against}, exactly or by a 13-gram."]
    return [f"Contamination, rows that are among the {against}: {'; '.join(touched)}."]
