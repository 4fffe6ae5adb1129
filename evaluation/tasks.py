"""lm-eval tasks, made from this package's sets."""

from collections.abc import Callable
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from evaluation.sets import VERSION, EvalSet, Form
from evaluation.sets import task_name as name

RunPrograms = Callable[[list[str], str], list[dict[str, Any]]]


def build(
    challenge: str,
    item: EvalSet,
    suite: str,
    documents: list[dict[str, Any]],
    *,
    samples: int = 1,
    run_programs: RunPrograms | None = None,
) -> ConfigurableTask:
    """The task of one set over `documents`, as the set's form in `suite` made them.

    Args:
        challenge: for the name.
        item: the set.
        suite: "official" or "standard".
        documents: what is scored.
        samples: answers for each document.
        run_programs: runs programs in a language, for sets whose answers are programs; gives back
            a dictionary with "passed" and "status" for each.
    """
    form = item.form(suite)

    def splits(**_: Any) -> dict[str, datasets.Dataset]:
        return {"test": datasets.Dataset.from_list(documents)}

    def process_results(document: dict[str, Any], responses: list[Any]) -> dict[str, float]:
        return {"acc": float(form.grade(document, responses).points)}

    def run(responses: list[list[str]], docs: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        assert run_programs is not None
        return run_programs_of(form, responses, docs, run_programs)

    config = {
        "task": name(challenge, item, suite),
        "custom_dataset": splits,
        "test_split": "test",
        "process_results": process_results,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "num_fewshot": 0,
        "repeats": samples,
        "metadata": {"version": VERSION},
        **form.config(),
    }
    if form.program is not None:
        steps = [{"function": "custom", "filter_fn": run}]
        config["filter_list"] = [{"name": "run", "filter": steps}]
    return ConfigurableTask(config=config)


def run_programs_of(
    form: Form, responses: list[list[str]], docs: list[dict[str, Any]], run_programs: RunPrograms
) -> list[list[dict[str, Any]]]:
    """Make programs of the answers to each document, and run all of them at once."""
    assert form.program is not None and form.language is not None
    pairs = zip(docs, responses, strict=True)
    programs = [form.program(doc, answer) for doc, answers in pairs for answer in answers]
    outcomes = iter(run_programs(programs, form.language))
    return [[next(outcomes) for _ in answers] for answers in responses]
