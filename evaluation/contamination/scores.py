"""Scores of the rows that are not training rows, beside the official ones."""

from collections.abc import Mapping
from typing import Any

from evaluation import report
from evaluation.contamination.clean import averages, clean_rows
from evaluation.run import Answer
from evaluation.sets import EvalSet


def with_scores(
    found: Mapping[str, Any],
    sets: Mapping[str, EvalSet],
    suite: str,
    answers: Mapping[str, Mapping[str, list[Answer]]],
) -> dict[str, Any]:
    """Return a report with the clean scores in it; as it is where nothing was checked.

    Args:
        found: the report of `check.compare`, on the rows that were scored.
        sets: by name.
        suite: whose forms were scored.
        answers: by model, then by set, in the order of the rows.
    """
    if not found["checked"]:
        return dict(found)
    made = {}
    for name, overlap in found["sets"].items():
        rows, macro_f1 = clean_rows(overlap), sets[name].form(suite).macro_f1
        scores = {
            model: report.score_of([by_set[name][row] for row in rows], macro_f1=macro_f1)
            for model, by_set in answers.items()
            if rows
        }
        made[name] = {**overlap, "scores": scores or None}
    means = averages(list(made.values()), list(answers))
    return {**found, "sets": made, "average": means}
