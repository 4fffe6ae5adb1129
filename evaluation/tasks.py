"""lm-eval tasks, made from this package's sets."""

from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from evaluation.sets import EvalSet

VERSION = 1.0  # raise it whenever a prompt or an answer rule changes


def name(challenge: str, item: EvalSet) -> str:
    """What lm-eval calls the task of a set."""
    return f"flowertune_{challenge.replace('-', '_')}_{item.name}"


def build(challenge: str, item: EvalSet, documents: list[dict[str, Any]]) -> ConfigurableTask:
    """The task of one set over `documents` (keys "context" and "target")."""

    def splits(**_: Any) -> dict[str, datasets.Dataset]:
        return {"test": datasets.Dataset.from_list(documents)}

    def process_results(document: dict[str, Any], responses: list[str]) -> dict[str, float]:
        return {"acc": float(item.judge(document, responses[0]).correct)}

    return ConfigurableTask(
        config={
            "task": name(challenge, item),
            "custom_dataset": splits,
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "context",
            "doc_to_target": "target",
            "generation_kwargs": dict(item.generation),
            "process_results": process_results,
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            "num_fewshot": 0,
            "metadata": {"version": VERSION},
        }
    )
