"""One pass of a model over the sets of a challenge, through lm-eval."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import transformers
from lm_eval import evaluator
from lm_eval.api import task as building
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from evaluation import programs, tasks
from evaluation.data import Documents
from evaluation.lm import RowwiseLM
from evaluation.sets import Answer, EvalSet


@dataclass(frozen=True)
class Pass:
    """One pass of a model.

    Attributes:
        lm_eval: lm-eval's own results.
        answers: of every set, in the order of its rows.
        seconds: how long it took.
        computed: how many rows at a time and how exactly, None where another engine decides that.
    """

    lm_eval: dict[str, Any]
    answers: dict[str, list[Answer]]
    seconds: float
    computed: dict[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """What is scored: the same for every model of a run.

    Attributes:
        challenge: names the tasks.
        suite: "official" or "standard".
        sets: what to score.
        documents: of each set, by its name.
        seed: of every random number generator.
        limit: score only the first so many rows of each set.
        samples: answers for each document of the sets whose answers are drawn.
        allow_unsandboxed: run programs even if there is no sandbox for them here.
    """

    challenge: str
    suite: str
    sets: list[EvalSet]
    documents: dict[str, Documents]
    seed: int
    limit: int | None = None
    samples: int = 1
    allow_unsandboxed: bool = False

    def samples_of(self, item: EvalSet) -> int:
        """Answers for each document of a set."""
        return self.samples if item.form(self.suite).sampled else 1

    def rows(self) -> int:
        """Answers that a pass needs."""
        sizes = {name: len(rows.documents[: self.limit]) for name, rows in self.documents.items()}
        return sum(sizes[item.name] * self.samples_of(item) for item in self.sets)


def score(lm: Any, plan: Plan, label: str = "", model_args: str = "") -> Pass:
    """Let `lm` (a `RowwiseLM`) answer the plan's documents, and apply the answer rules.

    `label` stands before the progress bar; `model_args`, in lm-eval's own results.
    """
    start = time.monotonic()

    def run_programs(texts: list[str], language: str) -> list[dict[str, Any]]:
        strict = plan.suite == "standard"
        wrapped = [programs.Program(language, code, strict) for code in texts]  # type: ignore[arg-type]
        with tqdm(total=len(wrapped), desc=f"{label}: running {language}", unit="program") as bar:

            def count(done: int) -> None:
                bar.update(done - bar.n)

            options: dict[str, Any] = {"allow_unsandboxed": plan.allow_unsandboxed}
            outcomes = programs.run_all(wrapped, progress=count, **options)
        return [
            {"passed": one.passed, "status": one.status, "detail": one.detail} for one in outcomes
        ]

    # A replay of the official batches goes on from what seeded the model.
    torch_seed: Any = None if lm.replay_batch else plan.seed
    with suppress_logs(), tqdm(total=plan.rows(), desc=label, unit="row") as bar:
        built: list[Any] = [
            tasks.build(
                plan.challenge,
                item,
                plan.suite,
                plan.documents[item.name].documents,
                samples=plan.samples_of(item),
                run_programs=run_programs,
            )
            for item in plan.sets
        ]

        def count_row() -> None:
            bar.update(1)

        lm.on_row = count_row
        ours = isinstance(lm, RowwiseLM)
        if ours:
            lm.begin()
        returned = simple_evaluate(
            model=lm,
            model_args=model_args,
            tasks=built,
            task_manager=TaskManager(include_defaults=False),
            batch_size=lm.batch_size,
            limit=plan.limit,
            # any positive number: the standard error of a mean has a closed form
            bootstrap_iters=1,
            random_seed=plan.seed,
            numpy_random_seed=plan.seed,
            torch_random_seed=torch_seed,
            fewshot_random_seed=plan.seed,
        )
    assert returned is not None
    results: dict[str, Any] = dict(returned)
    answers = {
        item.name: _answers(
            item, plan.suite, results["samples"][tasks.name(plan.challenge, item, plan.suite)]
        )
        for item in plan.sets
    }
    return Pass(results, answers, time.monotonic() - start, lm.record() if ours else None)


def _answers(item: EvalSet, suite: str, samples: list[dict[str, Any]]) -> list[Answer]:
    form = item.form(suite)
    rows = []
    for sample in sorted(samples, key=lambda sample: sample["doc_id"]):
        responses = sample["filtered_resps"]
        # Raw texts for the record, what the filters made of them for the rule.
        raw = sample["resps"][0] if form.program is not None else responses
        rows.append(Answer(sample["doc"], raw, form.grade(sample["doc"], responses)))
    return rows


@contextmanager
def suppress_logs() -> Iterator[None]:
    """Keep lm-eval's and transformers' notes about what we do on purpose off the screen."""
    bar = building.tqdm
    building.tqdm = lambda items, **_: items  # one bar, over rows, is enough
    # It would run git in the working directory, which says nothing of the scorer.
    describe, evaluator.get_git_commit_hash = evaluator.get_git_commit_hash, lambda: None
    logger = logging.getLogger("lm_eval")
    level, verbosity = logger.level, transformers.logging.get_verbosity()
    logger.setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        building.tqdm = bar
        evaluator.get_git_commit_hash = describe
        logger.setLevel(level)
        transformers.logging.set_verbosity(verbosity)
