"""Answer drawn rows of a bundle's sets again, with the scorer as it is."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation import cli
from evaluation.job import Job, prepare
from evaluation.sets import Answer
from flowertune.base.errors import UserError
from submissions import layout
from submissions.archive import OpenedBundle


@dataclass(frozen=True)
class Wanted:
    """How to score again.

    Attributes
    ----------
    model, data
        The organizer's own base model and folder of sets; None for the hub's.
    device
        None for the GPU if there is one.
    """

    model: Path | None = None
    data: Path | None = None
    device: str | None = None


@dataclass(frozen=True)
class Scored:
    """What came of it: the job, the loaded model, and each set's answers by row."""

    job: Job
    model: Any
    answers: Mapping[str, Mapping[int, Answer]]


def job_of(
    bundle: OpenedBundle, results: Mapping[str, Any], wanted: Wanted, opened: ExitStack
) -> Job:
    """Return the job that scores a bundle's adapter as its results say that it was scored.

    Raises
    ------
    UserError
        The adapter is not in the bundle, or model or sets cannot be had.
    """
    if layout.WEIGHTS not in bundle:
        raise UserError(
            f"The bundle holds no weights, only where they are: fetch them, unpack the bundle, and "
            f"put them there as {layout.WEIGHTS}."
        )
    made = results["provenance"]
    # "--option=value", so that no value is taken for an option.
    words = [str(bundle.path(layout.ADAPTER)), "--unofficial", f"--suite={results['suite']}"]
    words += [f"--quantization={made['quantization']}", f"--dtype={made['dtype']}"]
    words += [f"--sets={','.join(results['sets'])}"]
    words += [f"--answer-tokens={made['answer-tokens']}"] if made.get("answer-tokens") else []
    words += [f"--limit={made['limit']}"] if made.get("limit") else []
    words += ["--official-batching"] if made.get("official-batching") else []
    words += [f"--n-samples={made['samples']}"] if made.get("samples", 1) > 1 else []
    words += [f"--model={wanted.model}"] if wanted.model else []
    words += [f"--data-dir={wanted.data}"] if wanted.data else []
    words += [f"--device={wanted.device}"] if wanted.device else []
    # Nothing is written: the output only has to be a place that can be.
    words += [f"--output={bundle.folder.parent / 'rescored'}"]
    try:
        arguments: argparse.Namespace = cli.parser(results["challenge"]).parse_args(words)
    except SystemExit:
        raise UserError(
            f"{layout.SCORES} says that it was scored in a way that this scorer does not have."
        ) from None
    arguments.words = words
    return prepare(results["challenge"], arguments, opened)


def score_again(job: Job, rows: Mapping[str, Sequence[int]], session: Any) -> Scored:
    """Answer these rows of each set, and no others.

    Raises
    ------
    UserError
        The model cannot be loaded, or answers nothing.
    """
    # Late: lm-eval takes seconds to import.
    from evaluation import run, tasks

    scorer = session.scorer(job)
    plan = job.plan
    of_task = {tasks.name(plan.challenge, item, plan.suite): item.name for item in plan.sets}
    wanted = {(task, row) for task, name in of_task.items() for row in rows[name]}
    for name, left_out in (("generate_until", ""), ("loglikelihood", (0.0, False))):
        setattr(scorer, name, _only(getattr(scorer, name), wanted, left_out))
    with session.as_model("checkpoint"):
        done = run.score(scorer, plan, "re-scored")
    answers = {name: {row: done.answers[name][row] for row in rows[name]} for name in rows}
    return Scored(job, scorer.model, answers)


def _only(answer: Callable[..., list[Any]], wanted: set[tuple[str, int]], left_out: Any) -> Any:
    """Let an lm-eval model answer only requests of these rows; the others get ``left_out``."""

    def answered(requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        kept = [one for one in requests if (one.task_name, one.doc_id) in wanted]
        found = iter(answer(kept) if kept else [])
        return [
            next(found) if (one.task_name, one.doc_id) in wanted else left_out for one in requests
        ]

    return answered
