"""The overlap of a challenge's training rows with its evaluation sets, as results.json has it."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.contamination.overlap import SIZE, Index, Match, Overlap
from evaluation.contamination.training import NoRows, TrainingRows
from flowertune.data.fingerprint import Fingerprint


def compare(
    training: TrainingRows | NoRows, sets: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, Any]:
    """Return the report: what was compared, and what of each set is also in the training rows.

    Args:
        training: the rows, which are gone through once.
        sets: name -> texts of each evaluation row (`EvalSet.texts`).

    Returns:
        {"checked": False, "reason": …}, or {"checked": True, "training": where the rows came from,
        rows, unique-rows, sha256; "n-gram": words of one; "sets": by name}. A set has rows, exact
        (rows whose question is a text of a training row, word for word), n-gram (rows that share a
        13-gram with training rows), overlapping (either), clean (neither), short (rows of fewer
        words), and overlapping-rows: row, training-row (the first that has it), exact, share (of
        the row's 13-grams that are in training rows).
    """
    if isinstance(training, NoRows):
        return {"checked": False, "reason": training.reason}
    index, seen = Index(sets), Fingerprint()

    def texts() -> Any:
        for row in training.each():
            seen.add(row)
            yield [value for value in row.values() if isinstance(value, str)]

    index.see(texts())
    return {
        "checked": True,
        "training": {
            **training.origin,
            "rows": seen.rows,
            "unique-rows": seen.unique_rows,
            "sha256": seen.sha256,
        },
        "n-gram": SIZE,
        "sets": {name: _of_set(overlap) for name, overlap in index.found().items()},
    }


def _of_set(overlap: Overlap) -> dict[str, Any]:
    matches = overlap.matches.values()
    return {
        "rows": overlap.rows,
        "exact": sum(match.exact for match in matches),
        "n-gram": sum(match.share > 0 for match in matches),
        "overlapping": len(matches),
        "clean": overlap.rows - len(matches),
        "short": overlap.short,
        "overlapping-rows": [
            {"row": row, **_match(match)} for row, match in sorted(overlap.matches.items())
        ],
    }


def _match(match: Match) -> dict[str, Any]:
    return {
        "training-row": match.training_row,
        "exact": match.exact,
        # One n-gram of a very long row is still one.
        "share": max(round(match.share, 4), 0.0001) if match.share else 0.0,
    }
