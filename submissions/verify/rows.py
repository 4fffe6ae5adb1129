"""A set's rows: each answer read again by the scorer's own rule, and the scores they give."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from challenges import record
from evaluation import report
from evaluation.data import Documents
from evaluation.sets import Answer, EvalSet, Form, Outcome
from flowertune.base.hashing import json_sha256
from flowertune.base.text import counted
from flowertune.base.untrusted import UnusableFile
from flowertune.rules.values import shown
from submissions import layout
from submissions.verify import answers
from submissions.verify.case import Case, differences

SCORED = "checkpoint"  # the model whose scores count
MANY = 100  # rows from which a perfect score, or none, is worth a look


@dataclass(frozen=True)
class Made:
    """What the rows of a set give."""

    result: dict[str, Any]
    answers: dict[str, list[Answer]]


def of_set(
    case: Case, results: Mapping[str, Any], item: EvalSet, facts: dict[str, Any]
) -> Made | None:
    """Recompute a set from its rows; None where they cannot be read."""
    place, claimed = f"{layout.ROWS}/{item.name}.jsonl", results["sets"][item.name]
    suite, models = results["suite"], results["models"]
    form = item.form(suite)
    try:
        rows = list(case.bundle.lines(place))
    except UnusableFile as error:
        case.error("score", "rows", place, f"The file {error}.")
        return None
    wanted = facts["rows"] if claimed["full"] else claimed["rows"]
    if len(rows) != wanted or claimed["rows"] != len(rows):
        case.error(
            "score",
            "rows",
            place,
            f"There are {counted(len(rows), 'row')}, results.json says "
            f"{claimed['rows']:,}, and the set has {facts['rows']:,}.",
        )
    found: dict[str, list[Answer]] = {model: [] for model in models}
    for number, row in enumerate(rows):
        document = {key: row[key] for key in row if key not in ("row", *models)}
        where = f"{place}: row {number}"
        if row.get("row") != number or type(row.get("row")) is not int:
            case.error(
                "score",
                "rows",
                where,
                f"row is {shown(row.get('row'))}, and rows are numbered from 0.",
            )
            return None
        if reason := answers.document_problem(document, form):
            case.error("score", "questions", where, f"The question {reason}.")
            return None
        for model in models:
            if (answer := _answer(case, where, row.get(model), document, form, model)) is None:
                return None
            found[model].append(answer)
    if not rows:
        return None
    documents = [answer.document for answer in found[models[0]]]
    if (sizes := {len(a.responses) for of in found.values() for a in of}) != {
        claimed.get("samples-per-row")
    }:
        case.error(
            "score",
            "rows",
            place,
            f"Rows have {shown(sorted(sizes))} answers each, and results.json says "
            f"{shown(claimed.get('samples-per-row'))}.",
        )
        return None
    _hashes(case, results, item, documents)
    if reason := answers.order_problem(documents, form):
        case.error("score", "questions", place, f"{reason}.")
    for model in models:
        _possible(case, place, found[model], form, results, model)
    made = _recomputed(case, results, item, facts, documents, found)
    _perfect(case, item, found[SCORED])
    return Made(made, found)


def _answer(
    case: Case, where: str, given: Any, document: dict[str, Any], form: Form, model: str
) -> Answer | None:
    """Return a model's answer to a row as the scorer's own rule reads it; note what differs."""
    if reason := answers.shape_problem(given, form):
        case.error("score", "answers", where, f"The answer of {model} {reason}.")
        return None
    responses = given["responses"]
    if form.program is not None:
        outcome = answers.program_outcome(given)
        if isinstance(outcome, str):
            case.error("score", "points", where, f"The answer of {model} {outcome}.")
            return None
        return Answer(document, responses, outcome)
    try:
        outcome = form.grade(document, responses)
    except (ValueError, TypeError, KeyError, IndexError):
        case.error(
            "score",
            "answers",
            where,
            f"The answer of {model} is not one that the scorer's rule can read.",
        )
        return None
    claimed = Outcome(given["answer"], Fraction(given["points"]), given["parseable"])
    for what, check in (("answer", "answer"), ("points", "points"), ("parseable", "answer")):
        one, other = getattr(claimed, what), getattr(outcome, what)
        if one != other:
            case.error(
                "score",
                check,
                where,
                f"{what} of {model} is {_plain(one)}, and the scorer's rule makes "
                f"{_plain(other)} of the answer.",
            )
    return Answer(document, responses, outcome)


def _plain(value: Any) -> str:
    return str(value) if isinstance(value, Fraction) else shown(value)


def _hashes(
    case: Case, results: Mapping[str, Any], item: EvalSet, documents: list[dict[str, Any]]
) -> None:
    """Compare questions and targets with their hashes: the result's own, and those on record."""
    place, said = layout.SCORES, results["sets"][item.name]["data"]
    own = json_sha256(documents)
    if said["documents-sha256"] != own:
        case.error(
            "score",
            "questions",
            f"{layout.ROWS}/{item.name}.jsonl",
            f"Questions and targets have the sha256 {own[:12]}, and results.json says "
            f"{said['documents-sha256'][:12]}: they are not those that were scored.",
        )
    prompts = json_sha256([document.get("context", document) for document in documents])
    if results["provenance"]["prompts-sha256"].get(item.name) != prompts:
        case.error(
            "score",
            "questions",
            f"{place}: provenance.prompts-sha256.{item.name}",
            "The prompts in the rows are not those that were scored.",
        )
    case.facts.setdefault("questions", {})[item.name] = own
    rules = results["rules"]["name"] or "", results["rules"]["version"] or ""
    on_record = record.evaluation_data(*rules).get(results["challenge"], {}).get(item.name)
    pinned = record.pinned(*rules).get(results["challenge"], {}).get("evaluation", {})
    pairs = [("rows-sha256", said["rows-sha256"], on_record)]
    if results["suite"] == "official":
        pairs.append(("documents-sha256", own, pinned.get(item.name, {}).get("documents-sha256")))
    for key, given, wanted in pairs:
        if wanted is not None and given != wanted:
            case.error(
                "score", "questions", f"{place}: sets.{item.name}.data",
                f"{key} is {given[:12]}, and the rules have {wanted[:12]} on record: these are not "
                "the official questions and targets.",
            )  # fmt: skip
    if any(wanted is None for _, _, wanted in pairs):
        case.unpinned.append(item.name)


def _possible(
    case: Case,
    place: str,
    found: list[Answer],
    form: Form,
    results: Mapping[str, Any],
    model: str,
) -> None:
    """Note answers that no decoding could have given."""
    limits = answers.limits(form, results)
    for number, answer in enumerate(found):
        for response in answer.responses:
            if reason := answers.impossible(answer.document, response, limits):
                case.error(
                    "score",
                    "impossible",
                    f"{place}: row {number}",
                    f"The answer of {model} {reason}, which no decoding gives.",
                )


def _recomputed(
    case: Case,
    results: Mapping[str, Any],
    item: EvalSet,
    facts: dict[str, Any],
    documents: list[dict[str, Any]],
    found: dict[str, list[Answer]],
) -> dict[str, Any]:
    """Return what report.set_result makes of the rows; note every number that differs."""
    claimed = results["sets"][item.name]
    said = claimed["data"]
    kept = ("status", "rows-sha256", "documents-sha256")
    origin = {key: value for key, value in said.items() if key not in kept}
    sums = json_sha256(documents), said["rows-sha256"]
    read = Documents(documents, origin, said["status"], *sums, [])
    official = results["suite"] == "official" and not results["deviations"]
    full = all(one["full"] for one in results["sets"].values())
    made = report.set_result(
        item, results["suite"], facts, read, found, published=official and full
    )
    for path, given, wanted in differences(claimed, made):
        if path == "data.documents-sha256":
            continue  # told already
        case.error(
            "score",
            _check_of(path),
            f"{layout.SCORES}: sets.{item.name}.{path}",
            f"The value is {shown(given)}, and the rows give {shown(wanted)}.",
        )
    return made


def _check_of(path: str) -> str:
    if path.startswith(("scores.", "difference")):
        return "interval" if "interval" in path or "error" in path else "scores"
    return "facts"


def _perfect(case: Case, item: EvalSet, found: list[Answer]) -> None:
    points = sum(answer.outcome.points for answer in found)
    if len(found) >= MANY and points in (0, len(found)):
        what = "right" if points else "wrong"
        case.warn(
            "score",
            "perfect",
            f"{layout.ROWS}/{item.name}.jsonl",
            f"All {len(found):,} answers are {what}, which no known model does.",
        )
