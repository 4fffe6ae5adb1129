"""Results as a plain dictionary (what results.json holds) and as tables."""

from collections import Counter
from decimal import Decimal
from fractions import Fraction
from typing import Any

from evaluation import data, pinned, uncertainty
from evaluation.contamination import clean
from evaluation.data import Documents
from evaluation.rounding import average, half_up, percent
from evaluation.sets import Answer, EvalSet

PARTIAL, UNVERIFIED = "*", "†"
NAMES = {"base": "base model", "checkpoint": "fine-tuned", "model": "model"}


def _decimals(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _limits(bounds: uncertainty.Interval, sign: str = "") -> list[str]:
    return [f"{bound:{sign}.2f}" for bound in bounds]


def _points(answers: list[Answer]) -> list[Fraction]:
    return [answer.outcome.points for answer in answers]


def score_of(answers: list[Answer], macro_f1: bool = False) -> dict[str, Any]:
    """The score and what belongs to it, for the answers of one model to one set."""
    points, rows = _points(answers), len(answers)
    verdicts = [answer.outcome.parseable for answer in answers]
    result: dict[str, Any] = {
        "score": str(percent(sum(points, Fraction(0)), rows)),
        "standard-error": _decimals(uncertainty.standard_error(points)),
        "interval-95": _limits(uncertainty.interval(points)),
        "points": str(sum(points, Fraction(0))),
        "unparseable-answers": None
        if None in verdicts
        else str(percent(sum(verdict is False for verdict in verdicts), rows)),
    }
    if macro_f1:
        targets = [answer.document["target"] for answer in answers]
        f1 = uncertainty.macro_f1(targets, [answer.outcome.answer for answer in answers])
        result["macro-f1"] = str(half_up(100 * f1))
    return result


def set_result(
    item: EvalSet,
    suite: str,
    facts: dict[str, Any],
    documents: Documents,
    answers: dict[str, list[Answer]],
    published: bool,
) -> dict[str, Any]:
    """Everything about one set.

    Args:
        item: the set.
        suite: whose form was scored.
        facts: its entry under `evaluation.sets` of the challenge.
        documents: what was read.
        answers: by model ("base", "checkpoint" or "model"), in the order of the rows.
        published: whether the leaderboard's baseline may stand beside the scores.
    """
    form = item.form(suite)
    first = next(iter(answers.values()))
    classes = Counter(answer.document["target"] for answer in first)
    result = {
        "title": facts["title"],
        "metric": "accuracy" if form.program is None else "pass@1",
        "rows": len(first),
        "samples-per-row": 1 if form.program is None else len(first[0].responses),
        "full": documents.full and len(first) == facts["rows"],
        "data": {
            **documents.origin,
            "status": documents.status,
            "rows-sha256": documents.rows_sha256,
            "documents-sha256": documents.sha256,
        },
        "chance": str(half_up(Fraction(item.chance).limit_denominator(1000) * 100))
        if item.chance
        else None,
        "majority-class": str(percent(classes.most_common(1)[0][1], len(first)))
        if form.program is None
        else None,
        "published-baseline": facts["baseline"] if published else None,
        "scores": {
            model: score_of(rows, macro_f1=form.macro_f1) for model, rows in answers.items()
        },
    }
    if len(answers) == 2:
        before, after = (_points(rows) for rows in answers.values())
        result["difference"] = _difference(
            [r["score"] for r in result["scores"].values()],
            uncertainty.difference_error(before, after),
            uncertainty.difference_interval(before, after),
        )
    return result


def _difference(
    scores: list[str], error: float | None, bounds: uncertainty.Interval
) -> dict[str, Any]:
    change = Decimal(scores[1]) - Decimal(scores[0])
    return {
        "points": f"{change:+}",
        "standard-error": _decimals(error),
        "interval-95": _limits(bounds, "+"),
    }


def averages(sets: dict[str, dict[str, Any]], models: list[str]) -> dict[str, Any]:
    """The plain mean over sets, as the leaderboard prints it, of every model and of the majority.

    Their standard errors and intervals, and those of the difference, take the sets for
    independent.
    """
    results = list(sets.values())

    def column(model: str, key: str) -> list[Any]:
        return [result["scores"][model][key] for result in results]

    def error(values: list[str | None]) -> float | None:
        return uncertainty.mean_error([None if v is None else float(v) for v in values])

    def bounds(values: list[str], intervals: list[list[str]]) -> uncertainty.Interval:
        pairs = [(float(low), float(high)) for low, high in intervals]
        return uncertainty.mean_interval([float(value) for value in values], pairs)

    scores = {model: average(map(Decimal, column(model, "score"))) for model in models}
    majority = [result["majority-class"] for result in results]
    means: dict[str, Any] = {
        "scores": {
            model: {
                "score": str(scores[model]),
                "standard-error": _decimals(error(column(model, "standard-error"))),
                "interval-95": _limits(
                    bounds(column(model, "score"), column(model, "interval-95"))
                ),
            }
            for model in models
        },
        "majority-class": None if None in majority else str(average(map(Decimal, majority))),
    }
    if len(models) == 2:
        found = [result["difference"] for result in results]
        means["difference"] = _difference(
            [str(scores[model]) for model in models],
            error([one["standard-error"] for one in found]),
            bounds([one["points"] for one in found], [one["interval-95"] for one in found]),
        )
    return means


def table(results: dict[str, Any]) -> list[list[str]]:
    """The cells of the table, its header first, out of what results.json holds."""
    models, sets = results["models"], list(results["sets"].values())
    two = len(models) == 2
    optional = {
        "macro-F1": any("macro-f1" in r["scores"][models[0]] for r in sets),
        "majority": any(r["majority-class"] for r in sets),
        "chance": any(r["chance"] for r in sets),
        "no answer": any(r["scores"][models[0]]["unparseable-answers"] for r in sets),
        "published": results["published-average"] is not None
        or any(r["published-baseline"] for r in sets),
    }
    header = [f"suite {results['suite']}", "rows", *(NAMES[model] for model in models)]
    header += ["difference (95 %)"] if two else []
    clean_shown = _overlaps(results)
    header += ["clean rows", *(f"{NAMES[model]}, clean" for model in models)] if clean_shown else []
    header += [name for name, shown in optional.items() if shown]
    if optional["published"] and results["decoding"]["batching"] == "rows":
        header[-1] += f" (batches of {results['decoding']['official-batch-size']})"

    def line(
        title: str, rows: str, result: dict[str, Any], found: dict[str, Any], extra: dict[str, str]
    ) -> list[str]:
        scores = [result["scores"][model] for model in models]
        cells = [title, rows]
        cells += [_with_interval(score["score"], score["interval-95"]) for score in scores]
        if two:
            change = result["difference"]
            cells.append(_with_interval(change["points"], change["interval-95"]))
        if clean_shown:
            cells.append(f"{found['clean']:,}" if "clean" in found else "")
            scores = [found["scores"] and found["scores"][model] for model in models]
            cells += [_with_interval(s["score"], s["interval-95"]) if s else "" for s in scores]
        return cells + [extra.get(name) or "" for name, shown in optional.items() if shown]

    body = []
    for name, result in results["sets"].items():
        scores = [result["scores"][model] for model in models]
        found = results["contamination"]["sets"][name] if clean_shown else {}
        extra = {
            "macro-F1": " / ".join(s.get("macro-f1", "") for s in scores),
            "majority": result["majority-class"],
            "chance": result["chance"],
            "no answer": " / ".join(s["unparseable-answers"] or "" for s in scores),
            "published": result["published-baseline"],
        }
        rows = f"{result['rows']:,}{_mark(result)}"
        body.append(line(result["title"], rows, result, found, extra))
    mean = results["average"]
    extra = {"majority": mean["majority-class"], "published": results["published-average"]}
    found = {"scores": results["contamination"].get("average")}
    return [header, *body, line("average", "", mean, found, extra)]


def _overlaps(results: dict[str, Any]) -> bool:
    """Whether any scored row is also a training row."""
    sets = results["contamination"].get("sets", {})
    return any(found["overlapping"] for found in sets.values())


def _mark(result: dict[str, Any]) -> str:
    if result["full"]:
        return ""
    return UNVERIFIED if result["data"]["status"] == data.UNVERIFIED else PARTIAL


def _with_interval(points: str, bounds: list[str]) -> str:
    """A number with its limits, which get one decimal: they are no more certain than that."""
    sign = "+" if points[0] in "+-" else ""
    low, high = (f"{float(bound):{sign}.1f}" for bound in bounds)
    return f"{points} [{low}, {high}]"


def aligned(rows: list[list[str]]) -> str:
    """Rows as text in columns, with a line under the header and one over the last row."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def markdown(results: dict[str, Any]) -> str:
    """The table and its notes, ready to paste."""
    header, *body = table(results)
    marks = ["---", *("---:" for _ in header[1:])]
    lines = [f"| {' | '.join(row)} |" for row in (header, marks, *body)]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(results))]) + "\n"


def notes(results: dict[str, Any]) -> list[str]:
    """The sentences under the table: what the numbers are, and what they are not."""
    sets = list(results["sets"].values())
    metric = "pass@1" if sets[0]["metric"] == "pass@1" else "accuracy"
    sentences = [
        f"Suite {results['suite']}: {metric} in percent [95 % confidence interval, Wilson]."
    ]
    marks = {_mark(result) for result in sets}
    if PARTIAL in marks:
        sentences.append(
            f"{PARTIAL} not the full official set: a PARTIAL result, not one for a leaderboard."
        )
    if UNVERIFIED in marks:
        sentences.append(
            f"{UNVERIFIED} rows of a folder whose hash is not on record for these rules: an "
            "UNVERIFIED result, not one for a leaderboard."
        )
    if "checkpoint" in results["models"]:
        rules = results["rules"]
        named = f" (rules {rules['name']} {rules['version']})" if rules["name"] else ""
        reasons = "; ".join(results["unofficial"])
        sentences.append(
            f"UNOFFICIAL checkpoint{named}: {reasons}."
            if reasons
            else f"Official checkpoint{named}."
        )
        if not reasons:
            sentences += pinned.sentences(results["pinned"], rules)
    titles = {name: result["title"] for name, result in results["sets"].items()}
    sentences += clean.sentences(results["contamination"], titles)
    size = results["decoding"]["official-batch-size"]
    if results["decoding"]["batching"] == "rows":
        sentences.append(
            f"Each row decided by itself; a leaderboard score is decided in batches of {size}, as "
            "the published baselines were: --official-batching."
        )
    if results["decoding"]["batching"] == "official":
        sentences.append(f"Decided in the official batches of {size}, as a leaderboard score is.")
    if results["deviations"]:
        sentences.append("Not as the official scorer: " + "; ".join(results["deviations"]) + ".")
    below = [
        f"{result['title']}, {NAMES[model]} ({score['score']}; chance {result['chance']}; "
        f"{score['unparseable-answers']} % no answer)"
        for result in sets
        for model, score in result["scores"].items()
        if result["chance"]
        and score["unparseable-answers"] not in (None, "0.00")
        and Decimal(score["score"]) < Decimal(result["chance"])
    ]
    if below:
        sentences.append(
            f"Below chance, with answers that are none of the allowed ones: {'; '.join(below)}."
        )
    return sentences
