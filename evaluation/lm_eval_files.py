"""lm-eval's own results and samples files of a pass, for the tools that read such files."""

import time
from pathlib import Path
from typing import Any

from lm_eval.loggers import EvaluationTracker
from lm_eval.utils import sanitize_model_name

from evaluation.model import ModelChoice
from evaluation.run import Pass


def model_arguments(choice: ModelChoice, adapter: str | None) -> str:
    """What `lm_eval --model hf --model_args` would be given to load the same model.

    Args:
        choice: the base model, and how it is loaded.
        adapter: the checkpoint's folder as the caller named it; None for the base model alone.
    """
    given = {
        "pretrained": choice.base,
        "revision": choice.revision,
        "dtype": choice.dtype,
        "load_in_4bit": choice.quantization == 4 or None,
        "load_in_8bit": choice.quantization == 8 or None,
        "peft": adapter,
    }
    return ",".join(f"{name}={value}" for name, value in given.items() if value is not None)


def write(folder: Path, model: str, one: Pass) -> None:
    """Write what `lm_eval run --output_path folder --log_samples` would, to `folder/model`."""
    tracker = EvaluationTracker(output_path=str(folder))
    about = tracker.general_config_tracker
    arguments = one.lm_eval["config"]["model_args"]
    about.log_experiment_args("hf", arguments, None, None, False)
    about.model_name_sanitized = sanitize_model_name(model)
    about.start_time = time.perf_counter() - one.seconds
    # The tracker rewrites the rows that it is given.
    samples = {task: [dict(row) for row in rows] for task, rows in one.lm_eval["samples"].items()}
    without = {key: value for key, value in one.lm_eval.items() if key != "samples"}
    tracker.save_results_aggregated(results=without, samples=samples)
    for task, rows in samples.items():
        rows: Any  # the tracker's hint says otherwise
        tracker.save_results_samples(task_name=task, samples=rows)
