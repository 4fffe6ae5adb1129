"""Fingerprints of the training rows: one story, and the published one where the rules pin data."""

from typing import Any

from flowertune.rules.pinned import UNVERIFIED, VERIFIED, pins_of, row_differences, rows_status
from flowertune.rules.values import shown
from submissions import layout
from submissions.verify.case import Case


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
