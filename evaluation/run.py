"""One pass of a model over the sets of a challenge, through lm-eval."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from evaluation import tasks
from evaluation.data import Documents
from evaluation.sets import EvalSet

SEED = 2024


@dataclass(frozen=True)
class Answer:
    """One row of a set as it was scored."""

    document: dict[str, Any]
    response: str
    answer: str
    correct: bool
    legal: bool


@dataclass(frozen=True)
class Pass:
    """The result of one pass: lm-eval's own results, and the answers of every set in the order of
    its rows.
    """

    lm_eval: dict[str, Any]
    answers: dict[str, list[Answer]]
    seconds: float


def score(
    lm: Any,
    challenge: str,
    sets: list[EvalSet],
    documents: dict[str, Documents],
    *,
    limit: int | None = None,
    label: str = "",
) -> Pass:
    """Let `lm` answer the documents of `sets` and apply their answer rules.

    Args:
        lm: a `RowwiseLM`.
        challenge: names the tasks.
        sets: what to score.
        documents: of each set, by its name.
        limit: score only the first so many rows of each set.
        label: stands before the progress bar.
    """
    start = time.monotonic()
    total = sum(len(documents[item.name].documents[:limit]) for item in sets)
    with quiet(), tqdm(total=total, desc=label, unit="row") as bar:
        built: list[Any] = [
            tasks.build(challenge, item, documents[item.name].documents) for item in sets
        ]

        def count_row() -> None:
            bar.update(1)

        lm.on_row = count_row
        found = simple_evaluate(
            model=lm,
            tasks=built,
            task_manager=TaskManager(include_defaults=False),
            batch_size=lm.batch_size,
            limit=limit,
            # any positive number: the standard error of a mean has a closed form
            bootstrap_iters=1,
            random_seed=SEED,
            numpy_random_seed=SEED,
            torch_random_seed=SEED,
            fewshot_random_seed=SEED,
        )
    assert found is not None
    results: dict[str, Any] = dict(found)
    answers = {
        item.name: _answers(item, results["samples"][tasks.name(challenge, item)]) for item in sets
    }
    return Pass(results, answers, time.monotonic() - start)


def _answers(item: EvalSet, samples: list[dict[str, Any]]) -> list[Answer]:
    rows = []
    for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
        response = sample["filtered_resps"][0]
        outcome = item.judge(sample["doc"], response)
        rows.append(Answer(sample["doc"], response, outcome.answer, outcome.correct, outcome.legal))
    return rows


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's and transformers' notes about what we do on purpose off the screen."""
    import transformers
    from lm_eval.api import task as building

    bar = building.tqdm
    building.tqdm = lambda items, **_: items  # one bar, over rows, is enough
    logger = logging.getLogger("lm_eval")
    level, verbosity = logger.level, transformers.logging.get_verbosity()
    logger.setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        building.tqdm = bar
        logger.setLevel(level)
        transformers.logging.set_verbosity(verbosity)
