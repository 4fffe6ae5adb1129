"""lm-eval's own files: one of results, one of samples for each set, and both are the rows'."""

import math
from collections.abc import Mapping
from typing import Any

from evaluation.sets import Answer
from flowertune.base.untrusted import UnusableFile
from flowertune.rules.values import is_number, shown
from submissions import layout
from submissions.verify.case import Case
from submissions.verify.rows import SCORED

_METRIC = "acc"  # of every task that the scorer makes
_SLACK = 1e-9


def check(case: Case, rows: Mapping[str, list[Answer]], tasks: Mapping[str, str]) -> None:
    """Compare lm-eval's files with the rows of each set.

    Parameters
    ----------
    rows
        Answers of each set, in order.
    tasks
        What lm-eval calls each set's task.
    """
    names = case.bundle.below(layout.LM_EVAL)
    known = _results(case, names, rows, tasks)
    for name, answers in rows.items():
        begin = f"{layout.LM_EVAL}/samples_{tasks[name]}_"
        files = [file for file in names if file.startswith(begin) and file.endswith(".jsonl")]
        known.update(files)
        if len(files) != 1:
            _wrong(
                case, layout.LM_EVAL,
                f"There are {len(files)} files of samples for {name}, and lm-eval writes one.",
            )  # fmt: skip
            continue
        _samples(case, files[0], name, answers)
    for name in names:
        if name not in known:
            case.error(
                "structure", "unknown-file", name, "The file is none of those that lm-eval writes."
            )


def _results(
    case: Case, names: list[str], rows: Mapping[str, list[Answer]], tasks: Mapping[str, str]
) -> set[str]:
    """Compare the mean of each task; return the names of the files of results."""
    begin = f"{layout.LM_EVAL}/results_"
    files = [name for name in names if name.startswith(begin) and name.endswith(".json")]
    if len(files) != 1:
        _wrong(
            case, layout.LM_EVAL,
            f"There are {len(files)} files of results, and lm-eval writes one.",
        )  # fmt: skip
        return set(files)
    (file,) = files
    try:
        results = case.bundle.json(file).get("results")
    except UnusableFile as error:
        case.error("structure", "unreadable", file, f"The file {error}.")
        return {file}
    results = results if isinstance(results, dict) else {}
    if sorted(results) != sorted(tasks.values()):
        _wrong(
            case, file,
            f"There are results of {shown(sorted(results))}, and the sets are those of "
            f"{', '.join(tasks.values())}.",
        )  # fmt: skip
        return {file}
    for name, answers in rows.items():
        task = results[tasks[name]]
        # Behind the comma stands the filter that answers went through.
        found = [task[key] for key in task if key.partition(",")[0] == _METRIC] if isinstance(
            task, dict
        ) else []  # fmt: skip
        given = found[0] if len(found) == 1 else None
        mean = float(sum(answer.outcome.points for answer in answers) / len(answers))
        if not _is(given, mean):
            _wrong(
                case, f"{file}: {tasks[name]}",
                f"{_METRIC} is {shown(given)}, and the rows give {mean!r}.",
            )  # fmt: skip
    return {file}


def _samples(case: Case, file: str, name: str, answers: list[Answer]) -> None:
    try:
        samples = list(case.bundle.lines(file))
    except UnusableFile as error:
        case.error("structure", "unreadable", file, f"The file {error}.")
        return
    by_row = {sample.get("doc_id"): sample for sample in samples if _is_row(sample)}
    if by_row.keys() != set(range(len(answers))) or len(samples) != len(answers):
        _wrong(case, file, f"It has not the {len(answers):,} rows of {name}, once each.")
        return
    for number, answer in enumerate(answers):
        sample = by_row[number]
        responses = sample.get("resps")
        given = responses[0] if isinstance(responses, list) and len(responses) == 1 else responses
        texts = [one for one in answer.responses if isinstance(one, str)]
        pairs = [("question", sample.get("doc"), answer.document)]
        # Of choices it is the number of the right one.
        pairs += [
            ("target", sample.get("target"), answer.document["target"]), ("answer", given, texts)
        ] if texts else []  # fmt: skip
        where = f"{file}: row {number}"
        for what, one, other in pairs:
            if one != other:
                _wrong(
                    case, where,
                    f"The {what} is not that of {layout.ROWS}/{name}.jsonl ({SCORED}).",
                )  # fmt: skip
        if not _is(sample.get(_METRIC), float(answer.outcome.points)):
            _wrong(
                case, where,
                f"{_METRIC} is {shown(sample.get(_METRIC))}, and the row has "
                f"{float(answer.outcome.points)} points.",
            )  # fmt: skip


def _is_row(sample: Mapping[str, Any]) -> bool:
    return type(sample.get("doc_id")) is int


def _is(given: Any, wanted: float) -> bool:
    return is_number(given) and math.isclose(given, wanted, rel_tol=_SLACK, abs_tol=_SLACK)


def _wrong(case: Case, place: str, sentence: str) -> None:
    case.error("score", "formats", place, sentence)
