"""Scores as Hugging Face reads them beside a model: .eval_results/<name>.yaml."""

from collections.abc import Mapping
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from submissions.formats import benchmarks

AVERAGE = "average"


def file_name(challenge: str) -> str:
    """Return the name of a challenge's file in .eval_results."""
    return f"flowertune-{challenge}.yaml"


def hub_results(
    results: Mapping[str, Any], statement: Mapping[str, Any], owner: str = benchmarks.OWNER
) -> bytes:
    """Return the YAML of a submission's scores: one entry for each set, and one for the average.

    Parameters
    ----------
    results
        What results.json says.
    statement
        What submission.json says.
    owner
        Of the benchmark datasets on the hub.
    """
    dataset = benchmarks.dataset(statement["challenge"], owner)
    version = results["provenance"]["versions"].get("lm_eval", "")
    notes = (
        f"rules {statement['rules']} {statement['rules-version']}, suite {results['suite']}, "
        f"lm-eval {version}; declared by the participant"
    )
    scores = {**statement["scores"], AVERAGE: statement["average"]}
    entries = [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=name,
            value=float(score),
            date=statement["created"],
            notes=notes,
        )
        for name, score in scores.items()
    ]
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False).encode("utf-8")
