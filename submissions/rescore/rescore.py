"""Re-score a bundle: some rows of each set, drawn after submission, by the real model."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from evaluation.session import Session
from evaluation.sets import EvalSet
from flowertune.base.errors import UserError
from flowertune.base.text import counted
from flowertune.base.untrusted import UnusableFile
from submissions import layout
from submissions.archive import OpenedBundle
from submissions.findings import Finding
from submissions.replay.draw import seed_of
from submissions.rescore.again import Scored, Wanted, job_of, score_again
from submissions.rescore.compare import (
    DIFFERENT,
    TIE,
    TIED,
    RowCompared,
    compare_row,
)
from submissions.rescore.rows import drawn_rows
from submissions.rescore.ties import token_gap

CHECK = "re-score"
_SHOWN = 3  # rows of a set that are told one by one


def rescore(
    bundle: OpenedBundle,
    rows: int,
    nonce: str,
    wanted: Wanted | None = None,
    tie: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """Answer drawn rows of each set again, and compare.

    Parameters
    ----------
    bundle : OpenedBundle
        Verified: its files have the fields that verify asks for.
    rows : int
        How many of each set; all of a set that has fewer.
    nonce : str
        The organizer's word, chosen after submission: with the bundle's digest it decides the draw.
    tie : float | None
        How far below the best token another may be that is still taken for rounding; None for
        what is usual for the type of computation.

    Returns
    -------
    list[Finding]
        For each set a note on what was compared, and an error where rows differ.

    Raises
    ------
    UserError
        Model, weights or sets cannot be had: nothing is said of the bundle.
    """
    results = _results(bundle)
    with ExitStack() as opened:
        job = job_of(bundle, results, wanted or Wanted(), opened)
        session = Session()
        opened.callback(session.close)
        drawn = _drawn(bundle, job, rows, seed_of(bundle.digest, nonce))
        names = ", ".join(f"{name} {len(chosen)}" for name, chosen in drawn.items())
        say(f"re-scoring rows drawn with --nonce {nonce}: {names}")
        scored = score_again(job, drawn, session)
        limit = TIE.get(job.choice.dtype, TIE["float32"]) if tie is None else tie
        with session.as_model("checkpoint"):
            found = {item.name: _of_set(bundle, item, scored, limit) for item in job.plan.sets}
    return [finding for name, compared in found.items() for finding in _findings(name, compared)]


def _results(bundle: OpenedBundle) -> dict[str, Any]:
    try:
        return bundle.json(layout.SCORES)
    except UnusableFile as error:
        raise UserError(f"{layout.SCORES} {error}.") from None


def _drawn(bundle: OpenedBundle, job: Any, rows: int, seed: str) -> dict[str, list[int]]:
    # Late: torch takes seconds to import.
    from evaluation.model_settings import relevant

    batch = job.known.replay_batch if job.replayed else None
    # Where batches draw from one stream of random numbers, a row depends on all before it.
    everything = job.replayed and "do_sample" in relevant(job.settings.config)
    drawn = {}
    for item in job.plan.sets:
        there = len(job.scored[item.name])
        count = there if everything else rows
        drawn[item.name] = drawn_rows(item.name, there, count, seed, batch)
    return drawn


def _of_set(bundle: OpenedBundle, item: EvalSet, scored: Scored, tie: float) -> list[RowCompared]:
    job = scored.job
    answers = scored.answers[item.name]
    form = item.form(job.plan.suite)
    kwargs = form.config().get("generation_kwargs") or {}
    whole = kwargs.get("response") == "whole row" or job.replayed
    lines = _lines(bundle, item.name, answers)

    def gap(context: str, claimed: str, again: str) -> float | None:
        return token_gap(scored.model, job.tokenizer, context, claimed, again, whole)

    return [
        compare_row(row, lines[row], answer, form, tie, gap)
        if row in lines
        else RowCompared(row, DIFFERENT, "the bundle has no such row")
        for row, answer in answers.items()
    ]


def _lines(bundle: OpenedBundle, name: str, wanted: Mapping[int, Any]) -> dict[int, Any]:
    place = f"{layout.ROWS}/{name}.jsonl"
    try:
        return {n: line for n, line in enumerate(bundle.lines(place)) if n in wanted}
    except UnusableFile as error:
        raise UserError(f"{place} {error}.") from None


def _findings(name: str, compared: list[RowCompared]) -> list[Finding]:
    place = f"{layout.ROWS}/{name}.jsonl"
    wrong = [row for row in compared if row.verdict == DIFFERENT]
    tied = [row for row in compared if row.verdict == TIED]
    found = [
        Finding("score", "error", f"{place}: row {row.row}", f"Answered again, {row.why}.", CHECK)
        for row in wrong[:_SHOWN]
    ]
    same = len(compared) - len(wrong)
    sentence = f"{counted(len(compared), 'row')} answered again: {same:,} as in the bundle"
    if tied:
        sentence += f" ({len(tied):,} of them but for rounding)"
    if wrong:
        found.append(Finding("score", "error", place, f"{sentence}; {len(wrong)} differ.", CHECK))
    else:
        found.append(Finding("score", "note", place, f"{sentence}.", CHECK))
    return found
