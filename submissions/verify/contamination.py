"""Class contamination: the record of overlapping rows is there, and it adds up."""

from collections.abc import Mapping
from typing import Any

from evaluation import report
from evaluation.contamination.clean import averages as clean_averages
from evaluation.contamination.clean import clean_rows
from evaluation.contamination.overlap import SIZE
from flowertune.rules.values import shown
from submissions import layout
from submissions.verify.case import Case, differences
from submissions.verify.rows import SCORED, Made


def check(case: Case) -> None:
    """Whether the record of the overlap is there, and the same as in the scorer's result."""
    if case.contamination is None:
        return  # structure says so
    if case.results is not None and case.contamination != case.results["contamination"]:
        case.error(
            "contamination",
            "record",
            layout.CONTAMINATION,
            "The file is not what results.json holds as contamination.",
        )
    if case.contamination["checked"] is not True:
        case.note(
            "contamination",
            "not-checked",
            layout.CONTAMINATION,
            f"Not checked: {shown(case.contamination.get('reason'))}.",
        )


def clean_scores(case: Case, results: Mapping[str, Any], made: Mapping[str, Made]) -> None:
    """Recompute the scores without the rows that are also training rows."""
    found = results["contamination"]
    place = f"{layout.SCORES}: contamination"
    if found["checked"] is not True:
        return
    _training(case, found)
    rooms = found.get("sets")
    if not isinstance(rooms, dict) or sorted(rooms) != sorted(made):
        case.error(
            "contamination", "sets", place, "The overlap is not that of every set of the challenge."
        )
        return
    again = {}
    for name, one in made.items():
        if reason := overlap_problem(rooms[name], one.result["rows"]):
            case.error("contamination", "overlap", f"{place}.sets.{name}", f"{reason}.")
            return
        rows = clean_rows(rooms[name])
        scores = {
            model: report.score_of(
                [of[row] for row in rows], macro_f1="macro-f1" in one.result["scores"][model]
            )
            for model, of in one.answers.items()
            if rows
        }
        again[name] = {**rooms[name], "scores": scores or None}
        for path, given, wanted in differences(rooms[name].get("scores"), scores or None):
            case.error(
                "contamination",
                "clean-scores",
                f"{place}.sets.{name}.scores.{path}",
                f"The value is {shown(given)}, and the rows give {shown(wanted)}.",
            )
    wanted = clean_averages(list(again.values()), results["models"])
    for path, given, value in differences(found.get("average"), wanted):
        case.error(
            "contamination",
            "clean-scores",
            f"{place}.average.{path}",
            f"The value is {shown(given)}, and the sets give {shown(value)}.",
        )
    case.facts["clean-average"] = (wanted or {}).get(SCORED)


def _training(case: Case, found: Mapping[str, Any]) -> None:
    """The rows that sets were compared with are as many as clients trained on, in n-grams of 13."""
    place, training = f"{layout.SCORES}: contamination", found.get("training")
    if found.get("n-gram") != SIZE:
        case.error(
            "contamination", "overlap", place,
            f"n-gram is {shown(found.get('n-gram'))}, and the scorer compares {SIZE} words.",
        )  # fmt: skip
    if case.manifest is None:
        return
    rows, given = case.manifest["rows"], training.get("rows") if isinstance(training, dict) else 0
    total = sum(entry["rows"] for entry in rows.values())
    # Of partitions that never trained no rows are known.
    everybody = len(rows) == case.manifest["partitions"]
    if type(given) is not int or given < total or (everybody and given != total):
        case.error(
            "contamination", "training-rows", f"{place}.training",
            f"The sets were compared with {shown(given)} training rows, and clients have "
            f"{total:,}.",
        )  # fmt: skip


def overlap_problem(found: Any, rows: int) -> str | None:
    """Return what in the overlap of a set does not add up; None if it does."""
    if not isinstance(found, dict):
        return "There is no overlap of the set"
    counts = {
        key: found.get(key) for key in ("rows", "exact", "n-gram", "overlapping", "clean", "short")
    }
    if not all(type(count) is int and count >= 0 for count in counts.values()):
        return "A number of rows is missing, or is no whole number"
    listed = found.get("overlapping-rows")
    if not isinstance(listed, list) or not all(_is_match(one, rows) for one in listed):
        return "An overlapping row is not given by its number, training row, exactness and share"
    if counts["rows"] != rows:
        return f"It is of {counts['rows']:,} rows, and {rows:,} were scored"
    numbers = [one["row"] for one in listed]
    if numbers != sorted(set(numbers)):
        return "Overlapping rows are not listed once each, in order"
    if counts["overlapping"] != len(listed) or counts["clean"] != rows - len(listed):
        return (
            f"It says {counts['overlapping']:,} overlapping and {counts['clean']:,} clean rows, "
            f"and lists {len(listed):,} of {rows:,}"
        )
    exact = sum(one["exact"] for one in listed)
    shared = sum(one["share"] > 0 for one in listed)
    if (counts["exact"], counts["n-gram"]) != (exact, shared):
        return (
            f"It says {counts['exact']:,} exact rows and {counts['n-gram']:,} by n-gram, and lists "
            f"{exact:,} and {shared:,}"
        )
    return None


def _is_match(one: Any, rows: int) -> bool:
    return (
        isinstance(one, dict)
        and type(one.get("row")) is int
        and 0 <= one["row"] < rows
        and type(one.get("training-row")) is int
        and type(one.get("exact")) is bool
        and type(one.get("share")) in (int, float)
        and 0 <= one["share"] <= 1
        and (one["exact"] or one["share"] > 0)
    )
