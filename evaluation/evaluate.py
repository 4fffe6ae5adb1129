"""Score what was asked for, and write and print the result."""

import argparse
import sys
from contextlib import ExitStack
from typing import Any

from evaluation import data, next_steps, pinned
from evaluation import model as loading
from evaluation.job import Job, prepare
from evaluation.session import Session
from flowertune.base.errors import UserError


def evaluate(challenge: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Carry out a parsed command line; returns what results.json holds.

    Raises:
        UserError: one sentence; before the model is loaded wherever that is possible.
    """
    with ExitStack() as opened:
        job = prepare(challenge, arguments, opened)
        session = Session()
        results = score(job, session)
        session.remove_stores()
        for line in next_steps.lines(challenge, arguments, job.checkpoint):
            print(line)
        return results


def score(job: Job, session: Session) -> dict[str, Any]:
    """Score a job, write its result and print its table; returns what results.json holds.

    Args:
        session: loads the model, or has it from the job before.

    Raises:
        UserError: the model cannot be loaded, or answers nothing.
    """
    # Late, as in `job.prepare`.
    from evaluation import lm_eval_files, model_settings, outputs, provenance, report, run
    from evaluation.decoding.choice import NotFinite

    plan, choice, arguments = job.plan, job.choice, job.arguments
    checkpoint, models = job.checkpoint, job.models
    _say(provenance.heading(job.challenge, plan.suite, choice, checkpoint, models, job.sandbox))
    if checkpoint and checkpoint.older_rules:
        _say(checkpoint.older_rules)
    for sentence in model_settings.sentences(job.settings):
        _say(sentence)
    scorer = session.scorer(job)
    passes = {}
    for name in models:
        facts_of_answers = provenance.answers_depend_on(plan, choice, checkpoint, name, arguments)
        scorer.store = provenance.open_store(facts_of_answers)
        session.stores.append(scorer.store)
        if scorer.store.known:
            _say(f"{report.NAMES[name]}: {len(scorer.store.known)} answers are there already")
        with session.as_model(name):
            adapter = str(arguments.checkpoint) if name == "checkpoint" else None
            model_args = lm_eval_files.model_arguments(choice, adapter)
            try:
                session.check_scores(job)
                passes[name] = run.score(scorer, plan, report.NAMES[name], model_args)
            except NotFinite:
                raise UserError(_not_finite(choice, adapter)) from None

    results = _results(job, passes)
    outputs.write(job.folder, results, passes)
    print(report.aligned(report.table(results)))
    print("\n".join(report.notes(results)))
    print(f"Results: {job.folder / 'results.json'}")
    return results


def _results(job: Job, passes: dict[str, Any]) -> dict[str, Any]:
    # Late, as in `job.prepare`.
    from evaluation import model_settings, provenance, report
    from evaluation.contamination.scores import with_scores

    plan, arguments, models = job.plan, job.arguments, job.models
    entries = {entry["set"]: entry for entry in job.facts["sets"]}
    deviations = [
        *provenance.deviations(job.known, arguments, job.base, job.how),
        *job.settings.departures,
    ]
    full = arguments.limit is None and all(plan.documents[item.name].full for item in plan.sets)
    published = plan.suite == "official" and full and not deviations
    results: dict[str, Any] = {
        "format": 1,
        "challenge": job.challenge,
        "suite": plan.suite,
        "models": models,
        "rules": provenance.rules(job.checkpoint),
        "unofficial": job.reasons if "checkpoint" in models else [],
        "deviations": deviations,
        "decoding": model_settings.record(job.settings, job.way, job.known.replay_batch),
        "sets": {
            item.name: report.set_result(
                item,
                plan.suite,
                entries[item.name],
                plan.documents[item.name],
                {name: passes[name].answers[item.name] for name in models},
                published,
            )
            for item in plan.sets
        },
    }
    results["average"] = report.averages(results["sets"], models)
    results["contamination"] = with_scores(
        job.contamination,
        {item.name: item for item in plan.sets},
        plan.suite,
        {name: passes[name].answers for name in models},
    )
    results["pinned"] = _pinned(job)
    everything = published and len(plan.sets) == len(entries)
    results["published-average"] = job.facts["average"] if everything else None
    results["provenance"] = provenance.build(
        plan, job.choice, job.base, job.how, job.checkpoint, arguments, passes, job.started
    )
    return results


def _pinned(job: Job) -> dict[str, Any]:
    under = job.checkpoint.rules if job.checkpoint else None
    return pinned.statuses(
        pinned.pins_of(job.challenge, under),
        job.plan.documents,
        data.on_record(job.challenge, under),
        job.base,
        getattr(loading.config(job.choice), "_commit_hash", None),
        job.contamination,
        job.checkpoint.rows if job.checkpoint else pinned.UNVERIFIED,
    )


def _not_finite(choice: loading.ModelChoice, adapter: str | None) -> str:
    what = f"the base model {choice.base}"
    if adapter is not None:
        what += f" with the adapter {adapter}"
    return (
        f"{what} rates the next token with NaN, with infinity, or all tokens the same, so there is "
        f"no answer to score: its weights are damaged, or too large for --dtype {choice.dtype}"
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
