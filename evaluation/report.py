"""Results as a plain dictionary (what results.json holds) and as the table that is printed."""

import math
from collections import Counter
from decimal import Decimal
from typing import Any

from evaluation.data import Documents
from evaluation.rounding import average, percent
from evaluation.run import Answer
from evaluation.sets import EvalSet


def standard_error(correct: int, rows: int) -> Decimal | None:
    """Standard error of an accuracy in percentage points; None for fewer than two rows."""
    if rows < 2:
        return None
    share = correct / rows
    return Decimal(f"{100 * math.sqrt(share * (1 - share) / (rows - 1)):.2f}")


def score_of(answers: list[Answer]) -> dict[str, Any]:
    """Accuracy and what belongs to it, for the answers of one model to one set."""
    correct, rows = sum(answer.correct for answer in answers), len(answers)
    illegal = sum(not answer.legal for answer in answers)
    return {
        "correct": correct,
        "accuracy": str(percent(correct, rows)),
        "standard-error": str(standard_error(correct, rows)),
        "illegal-answers": str(percent(illegal, rows)),
    }


def set_result(
    item: EvalSet,
    facts: dict[str, Any],
    documents: Documents,
    answers: dict[str, list[Answer]],
    published: bool,
) -> dict[str, Any]:
    """Everything about one set.

    Args:
        item: the set.
        facts: its entry under `evaluation.sets` of the challenge.
        documents: what was read.
        answers: by model ("base", "checkpoint"), in the order of the rows.
        published: whether the leaderboard's baseline may stand beside the scores.
    """
    first = next(iter(answers.values()))
    majority = Counter(answer.document["target"] for answer in first).most_common(1)[0][1]
    return {
        "title": facts["title"],
        "rows": len(first),
        "full": documents.full and len(first) == facts["rows"],
        "data": {**documents.origin, "documents-sha256": documents.sha256},
        "majority-class": str(percent(majority, len(first))),
        "chance": str(percent(round(item.chance * 10**6), 10**6)),
        "published-baseline": facts["baseline"] if published else None,
        "scores": {model: score_of(found) for model, found in answers.items()},
    }


def averages(sets: dict[str, dict[str, Any]], models: list[str]) -> dict[str, str]:
    """The plain mean over sets, as the leaderboard prints it, of every model and of the majority
    class.
    """
    found = {
        model: str(
            average(Decimal(result["scores"][model]["accuracy"]) for result in sets.values())
        )
        for model in models
    }
    majority = average(Decimal(result["majority-class"]) for result in sets.values())
    return {**found, "majority-class": str(majority)}


NAMES = {"base": "base model", "checkpoint": "fine-tuned", "model": "model"}


def table(results: dict[str, Any]) -> list[list[str]]:
    """The rows of the printed table, its header first, out of what results.json holds."""
    models = results["models"]
    published = any(result["published-baseline"] for result in results["sets"].values())
    header = ["set", "rows", *(NAMES[model] for model in models)]
    if len(models) == 2:
        header.append("difference")
    header += ["majority", "chance", "no answer"]
    if published:
        header.append("published")
    body = []
    for result in results["sets"].values():
        scores = [result["scores"][model] for model in models]
        line = [result["title"], f"{result['rows']:,}" + ("" if result["full"] else "*")]
        line += [f"{score['accuracy']} ±{score['standard-error']}" for score in scores]
        if len(models) == 2:
            line.append(_difference(scores[0]["accuracy"], scores[1]["accuracy"]))
        line += [
            result["majority-class"],
            result["chance"],
            " / ".join(s["illegal-answers"] for s in scores),
        ]
        body.append(line + ([result["published-baseline"] or ""] if published else []))
    means = results["average"]
    line = ["average", "", *(means[model] for model in models)]
    if len(models) == 2:
        line.append(_difference(means[models[0]], means[models[1]]))
    line += [means["majority-class"], "", ""]
    body.append(line + ([results["published-average"] or ""] if published else []))
    return [header, *body]


def _difference(before: str, after: str) -> str:
    return f"{Decimal(after) - Decimal(before):+}"


def aligned(rows: list[list[str]]) -> str:
    """Rows as text in columns: the first flush left, the others flush right, a line under the
    header and over the last.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def notes(results: dict[str, Any]) -> list[str]:
    """The sentences under the table: what the numbers are, and what they are not."""
    found = [f"Suite {results['suite']}; accuracy in percent ± its standard error."]
    if any(not result["full"] for result in results["sets"].values()):
        found.append(
            "* not the full official set: PARTIAL result, not comparable with the leaderboard."
        )
    if results["unofficial"]:
        found.append("UNOFFICIAL checkpoint: " + "; ".join(results["unofficial"]) + ".")
    if results["departures"]:
        found.append("Differs from the official scorer: " + "; ".join(results["departures"]) + ".")
    for result in results["sets"].values():
        for model, score in result["scores"].items():
            if (
                Decimal(score["accuracy"]) < Decimal(result["chance"])
                and Decimal(score["illegal-answers"]) > 0
            ):
                found.append(
                    f"{result['title']}, {NAMES[model]}: below chance ({result['chance']}); "
                    f"{score['illegal-answers']} % of its answers name no allowed option."
                )
    return found
