"""Everything that the board shows, as JSON and as CSV."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from submissions.board.entry import Refused
from submissions.board.ranking import Board, Row

FORMAT = 1
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_COLUMNS = (
    "challenge", "rules", "rules-version", "division", "rank", "reference", "team", "model",
    "parameters", "average", "average-low", "average-high", "clean-average", "mib", "hours",
    "run-hours", "tier", "warnings", "signed-by", "created", "rounds", "hardware", "id", "digest",
    "checkpoint",
)  # fmt: skip


def line(row: Row) -> dict[str, Any]:
    """Return what a table shows of an entry, its scores by set."""
    entry = row.entry
    return {
        "rank": row.rank,
        "reference": entry.reference,
        "challenge": entry.challenge,
        "rules": entry.rules,
        "rules-version": entry.rules_version,
        "division": entry.division,
        "team": entry.team,
        "model": entry.model,
        "parameters": entry.parameters,
        "scores": {
            one.name: {
                "score": one.score,
                "interval-95": [one.low, one.high] if one.low else None,
                "rows": one.rows,
                "clean": one.clean,
                "clean-rows": one.clean_rows,
            }
            for one in entry.sets
        },
        "average": entry.average,
        "average-low": entry.average_low or None,
        "average-high": entry.average_high or None,
        "clean-average": entry.clean_average,
        "mib": entry.mib,
        "hours": entry.hours,
        "run-hours": entry.run_hours,
        "tier": entry.tier or None,
        "warnings": entry.warnings,
        "signed-by": entry.signed_by or None,
        "created": entry.created or None,
        "rounds": entry.rounds,
        "hardware": entry.hardware or None,
        "id": entry.id,
        "digest": entry.digest or None,
        "checkpoint": entry.checkpoint or None,
    }


def board(one: Board) -> dict[str, Any]:
    """Return a table as JSON."""
    return {
        "format": FORMAT,
        "id": one.id,
        "challenge": one.challenge,
        "rules": one.rules,
        "rules-version": one.rules_version,
        "division": one.division,
        "rows": [line(row) for row in one.rows],
    }


def submission(row: Row) -> dict[str, Any]:
    """Return everything that a submission's page shows, as JSON."""
    entry = dataclasses.asdict(row.entry)
    del entry["reference"], entry["sets"], entry["findings"]
    kept = {key.replace("_", "-"): value for key, value in entry.items()}
    findings = [finding.body() for finding in row.entry.findings]
    return {"format": FORMAT, **kept, **line(row), "findings": findings}


def refused(one: Refused) -> dict[str, Any]:
    """Return an INVALID bundle as JSON, with what was found."""
    return {
        "bundle": one.bundle,
        "digest": one.digest,
        "team": one.team or None,
        "challenge": one.challenge or None,
        "findings": [finding.body() for finding in one.findings],
    }


def everything(title: str, boards: Sequence[Board], invalid: Iterable[Refused]) -> dict[str, Any]:
    """Return all tables and all INVALID bundles as JSON."""
    return {
        "format": FORMAT,
        "title": title,
        "boards": [board(one) for one in boards],
        "refused": [refused(one) for one in invalid],
    }


def as_csv(boards: Sequence[Board]) -> str:
    """Return tables as one CSV: a line a row, with columns for each set and its interval."""
    sets = list(dict.fromkeys(name for one in boards for name, _ in one.sets))
    scored = [column for name in sets for column in (name, f"{name}-low", f"{name}-high")]
    lines = []
    for one in boards:
        for row in one.rows:
            cells = line(row)
            cells["warnings"] = " ".join(cells["warnings"])
            for name, found in cells.pop("scores").items():
                low, high = found["interval-95"] or (None, None)
                cells |= {name: found["score"], f"{name}-low": low, f"{name}-high": high}
            lines.append(cells)
    return _csv([*_COLUMNS, *scored], lines)


def refused_csv(invalid: Iterable[Refused]) -> str:
    """Return the findings of INVALID bundles as CSV, a line for each."""
    columns = ("bundle", "digest", "team", "challenge", "level", "kind", "check", "place",
               "sentence")  # fmt: skip
    lines = [
        {"bundle": one.bundle, "digest": one.digest, "team": one.team, "challenge": one.challenge,
         **finding.body()}
        for one in invalid
        for finding in one.findings
    ]  # fmt: skip
    return _csv(columns, lines)


def _csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for one in lines:
        writer.writerow([cell(one.get(name)) for name in columns])
    return text.getvalue()


def cell(value: Any) -> str:
    """Return a cell of a CSV; text that a spreadsheet would take for a formula gets a quote."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    begins = text.lstrip(" \u00a0").startswith(_FORMULA) or text.startswith(_FORMULA)
    return f"'{text}" if isinstance(value, str) and begins else text
