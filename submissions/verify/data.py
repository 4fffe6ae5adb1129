"""Fingerprints of the training rows: one story, and the published one where the rules pin data."""

import math
import re
from typing import Any

from flowertune.rules.pinned import (
    UNVERIFIED,
    VERIFIED,
    model_status,
    pins_of,
    row_differences,
    rows_status,
)
from flowertune.rules.values import is_number, shown
from submissions import layout
from submissions.verify.case import Case

_COMMIT = re.compile("[0-9a-f]{40}")
_PER_ROUND = ("max-steps", "per-device-train-batch-size", "gradient-accumulation-steps")


def check(case: Case) -> None:
    """Compare the rows that clients trained on with the bundle's fingerprints and the record."""
    manifest = case.manifest
    if manifest is None:
        return
    rows = manifest["rows"]
    if case.fingerprints is not None:
        _fingerprints(case, case.fingerprints, rows)
    if case.rounds is not None:
        trained = {p for line in case.rounds for p in line["partitions"]
                   if line["round"] <= manifest["round"]}  # fmt: skip
        if missing := sorted(p for p in trained if str(p) not in rows):
            case.error(
                "run", "rows", f"{layout.MANIFEST}: rows",
                f"Partition {missing[0]} trained, and its rows have no fingerprint.",
            )  # fmt: skip
    _pinned(case, rows)
    _claims(case, rows)
    _report(case, rows)


def _fingerprints(case: Case, said: dict[str, Any], rows: dict[str, Any]) -> None:
    manifest, place = case.manifest, layout.FINGERPRINTS
    assert manifest is not None
    static = manifest["static"]
    for key in ("dataset", "revision"):
        locked = static.get("dataset.name" if key == "dataset" else "dataset.revision")
        case.differ("run", "fingerprints", place, key, said[key], locked, "the run's")
    for name in sorted({*said["partitions"], *rows}):
        one, other = said["partitions"].get(name), rows.get(name)
        for key in ("rows", "unique-rows", "sha256"):
            given, wanted = (one or {}).get(key), (other or {}).get(key)
            if given != wanted:
                case.error(
                    "run", "fingerprints", place,
                    f"{key} of partition {shown(name)} is {shown(given)}, and the manifest says "
                    f"{shown(wanted)}.",
                )  # fmt: skip
    total = sum(entry["rows"] for entry in rows.values())
    case.differ("run", "fingerprints", f"{place}: all", "rows", said["all"]["rows"], total,
                "the sum of all partitions")  # fmt: skip
    unique = said["all"]["unique-rows"]
    if unique is not None and not 0 < unique <= total:
        case.error(
            "run", "fingerprints", f"{place}: all", f"{unique:,} of {total:,} rows are unique."
        )


def _pinned(case: Case, rows: dict[str, Any]) -> None:
    manifest = case.manifest
    assert manifest is not None
    static, partitions = manifest["static"], manifest["partitions"]
    status = rows_status(static, partitions, rows)
    case.facts["rows"] = status
    if status == UNVERIFIED:
        case.note(
            "run", "unverified", f"{layout.MANIFEST}: rows",
            "The rules version has no fingerprints of the training rows on record: that these are "
            "the challenge's rows is unverified.",
        )  # fmt: skip
    elif status != VERIFIED:
        for found in row_differences(static, partitions, rows):
            case.error("run", "pinned-rows", f"{layout.MANIFEST}: rows", f"{found}.")
    training = pins_of(static).get("training", {})
    whole = training.get("rows")
    total = sum(entry["rows"] for entry in rows.values())
    if isinstance(whole, int) and len(rows) == partitions and total != whole:
        case.error(
            "run", "pinned-rows", f"{layout.MANIFEST}: rows",
            f"All partitions together have {total:,} rows, and the training set has {whole:,}.",
        )  # fmt: skip


def _claims(case: Case, rows: dict[str, Any]) -> None:
    """What the run says of pinned rows and of its base model is what the record makes of them."""
    manifest = case.manifest
    assert manifest is not None
    static, base = manifest["static"], manifest["base-model"]
    commit = base.get("commit")
    wanted = {
        "training-rows": rows_status(static, manifest["partitions"], rows),
        "base-model": model_status(static, base["name"], commit),
    }
    for name, body in ((layout.MANIFEST, manifest), (layout.RUN_INFO, case.run)):
        given = (body or {}).get("pinned")
        if body is not None and given != wanted:
            case.error(
                "run", "pinned-claim", f"{name}: pinned",
                f"The run says {shown(given)}, and the published record gives {shown(wanted)}.",
            )  # fmt: skip
    if commit is not None and (not isinstance(commit, str) or not _COMMIT.fullmatch(commit)):
        case.error(
            "run", "pinned-claim", f"{layout.MANIFEST}: base-model",
            f"commit is {shown(commit)}, which is none of git.",
        )  # fmt: skip


def _report(case: Case, rows: dict[str, Any]) -> None:
    """The data report of run.json counts the rows that have fingerprints."""
    report, manifest = (case.run or {}).get("data"), case.manifest
    assert manifest is not None
    if not isinstance(report, dict) or report.get("partitions") != len(rows):
        return  # nobody was asked, or clients that never trained were
    total = sum(entry["rows"] for entry in rows.values())
    if report.get("rows") != total:
        case.error(
            "run", "data-report", f"{layout.RUN_INFO}: data",
            f"The report is of {shown(report.get('rows'))} rows, and the partitions have "
            f"{total:,}.",
        )  # fmt: skip
    said, rounds, settings = manifest.get("rows-visited"), case.rounds, manifest["settings"]
    found = [settings.get(f"train.training-arguments.{part}") for part in _PER_ROUND]
    parts = [part for part in found if isinstance(part, int)]
    if rounds is None or len(parts) < len(found) or not total:
        return
    most = math.prod(parts) * sum(line["clients"] for line in rounds) / total
    if not is_number(said) or not 0 <= float(str(said)) <= min(1.0, most) + 1e-6:
        case.error(
            "run", "data-report", f"{layout.MANIFEST}: rows-visited",
            f"The share of rows that were trained on is {shown(said)}, and the rounds visit at "
            f"most {min(1.0, most):.6f}.",
        )  # fmt: skip
