"""The files of a result: results.json, results.md, one row file per set, and lm-eval's own."""

import json
from pathlib import Path
from typing import Any

from lm_eval.loggers import EvaluationTracker

from evaluation import report
from evaluation.run import Pass
from flowertune.base.errors import UserError
from flowertune.base.files import write_atomically


def write(folder: Path, results: dict[str, Any], passes: dict[str, Pass]) -> None:
    """Write all files of a result to `folder`.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in results["sets"]:
            write_atomically(folder / "rows" / f"{name}.jsonl", _rows(name, passes))
        for model, one in passes.items():
            _write_lm_eval(folder / "lm-eval", model, one.lm_eval)
        write_atomically(folder / "results.md", report.markdown(results))
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_atomically(folder / "results.json", text)
    except OSError as error:
        raise UserError(
            f"the results cannot be written to {folder} ({error.strerror}): choose another folder "
            "with --output"
        ) from None


def _rows(name: str, passes: dict[str, Pass]) -> str:
    columns = {model: one.answers[name] for model, one in passes.items()}
    first = next(iter(columns.values()))
    lines = []
    for number, answer in enumerate(first):
        line: dict[str, Any] = {"row": number, **answer.document}
        for model, answers in columns.items():
            one = answers[number]
            line[model] = {
                "responses": one.responses,
                "answer": one.outcome.answer,
                "points": float(one.outcome.points),
                "parseable": one.outcome.parseable,
            }
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def _write_lm_eval(folder: Path, model: str, results: dict[str, Any]) -> None:
    """As `lm_eval run --output_path` does, so that lm-eval's own tools read it."""
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name = model
    tracker.general_config_tracker.model_name_sanitized = model
    samples = results["samples"]
    without = {key: value for key, value in results.items() if key != "samples"}
    tracker.save_results_aggregated(results=without, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
