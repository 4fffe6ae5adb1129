"""Why no bundle was made, in the participant's words: each cause once, by what it is about."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import challenges
from challenges import record
from evaluation import sets
from flowertune.base.text import counted
from flowertune.rules.lock import check_library
from flowertune.rules.provenance import Library
from submissions import layout
from submissions.bundle import sources
from submissions.bundle.sources import (
    ABOUT,
    APP,
    BUNDLE,
    COMMAND,
    RUN_ITSELF,
    SCORE,
    Found,
    Problem,
)
from submissions.findings import Finding

_HEADINGS = {
    COMMAND: "The command line", RUN_ITSELF: "The run", APP: "The app", SCORE: "The score",
    BUNDLE: "The bundle, as the organizer's check sees it",
}  # fmt: skip
_SAMPLES = "./samples/"
_DATA, _LIBRARY = "static.dataset.name is ", "the library is "
_EDITABLE = "an editable install"
# What the check says of a run that is not official, and of a score: told as causes instead.
_OF_RUN = {
    ("rules", "locked-value"), ("rules", "official"), ("rules", "SuperNodes"),
    ("rules", "supernodes"), ("rules", "partitions"), ("rules", "budget"),
    ("system", "library-of-run"),
}  # fmt: skip
_OF_SCORE = {("score", "official"), ("score", "suite"), ("system", "library-of-score")}
_TOLD = (
    ": provenance", "unofficial", "deviations", "quantization", "dtype", "hub", "backend",
    "answer-tokens", "limit", "official-batching", "decoding.batching",
)  # fmt: skip
_NONE_YET = "version 1.0.0 will be the first, and no run that is made before it can be submitted"


def text(problems: Sequence[Problem], found: Found | None) -> str:
    """Return what to say of a bundle that was not made: one sentence, then each cause, by place.

    Parameters
    ----------
    problems
        What is in the way.
    found
        The run and its score, as far as they were found.
    """
    once = list(dict.fromkeys(problems))
    if len(once) == 1 and (found is None or not found.unofficial):
        return f"Not submitted: {once[0].sentence}"
    lines = [_lead(once, found)]
    for about in ABOUT:
        of_it = [problem.sentence for problem in once if problem.about == about]
        if of_it:
            lines += ["", _HEADINGS[about], *(f"- {sentence}" for sentence in of_it)]
    return "\n".join(lines)


def _lead(problems: Sequence[Problem], found: Found | None) -> str:
    what = practice(found) if found is not None else []
    if what:
        return (
            f"Not submitted: this is a practice run, {' and '.join(what)}, and only a run that "
            "keeps the locked values of its rules can be submitted."
        )
    return f"Not submitted, {counted(len(problems), 'thing')} to mend:"


def practice(found: Found) -> list[str]:
    """Return what makes a run one that was never meant to be submitted; empty where nothing is."""
    what = []
    if any(reason.startswith(f"{_DATA}'{_SAMPLES}") for reason in found.unofficial):
        what.append("on the quickstart's sample rows")
    if any(reason.startswith(f"{_LIBRARY}'{_EDITABLE}'") for reason in found.unofficial):
        what.append("with an editable install of flowertune")
    return what


def causes(found: Found, findings: Iterable[Finding]) -> list[Problem]:
    """Return why a bundle is not valid, each cause once.

    Parameters
    ----------
    found
        The run and its score.
    findings
        Errors of the organizer's check; those that only repeat a cause are left out.
    """
    of_run = [Problem(RUN_ITSELF, _of_run(reason)) for reason in found.unofficial]
    phrases = _of_score(found)
    of_score = [Problem(SCORE, sentence) for sentence in phrases]
    if phrases and found.sources is not None:
        # A run that cannot be submitted need not be scored again.
        scored = Path("results/RUN") if of_run else found.sources.checkpoint
        command = sources.score_command(found.sources.challenge, scored)
        of_score.append(Problem(SCORE, f"To make the official one: `{command}` (GPU, hub)."))
    rest = [
        Problem(BUNDLE, finding.line().removeprefix("error").lstrip())
        for finding in findings
        if not _repeats(finding, bool(of_run), bool(phrases))
    ]
    return [*of_run, *of_score, *rest]


def _of_run(reason: str) -> str:
    given, _, locked = (part.strip("'") for part in reason.rstrip(")").partition(" (locked: "))
    if reason.startswith(_DATA):
        given = given.removeprefix(f"{_DATA}'")
        how = ", without quickstart.toml" if given.startswith(_SAMPLES) else ""
        return (
            f"It trained on {given}, and the rules lock {locked}: train with "
            f"`flwr run . --stream`{how} (GPU, hub)."
        )
    if reason.startswith(_LIBRARY):
        given = given.removeprefix(f"{_LIBRARY}'")
        what = "an editable install of flowertune" if given == _EDITABLE else given
        more = "install one with pip, and train again" if record.library() else _NONE_YET
        return f"Its library is {what}, and only a released version counts: {more}."
    return f"It is not official: {reason}."


def _of_score(found: Found) -> list[str]:
    """In what a score is not the official one, a sentence each; empty where it is."""
    results = found.results
    if results is None:
        return []
    said: list[str] = []
    with suppress(KeyError, TypeError, AttributeError, ValueError):  # not as the scorer writes it
        said += _of_rows(results)
        if results["suite"] != "official":
            said.append(f"It is of the suite {results['suite']}, and official scores count.")
        provenance = results["provenance"]
        run = set(found.unofficial)
        said += [f"Its checkpoint: {one}." for one in results["unofficial"] if one not in run]
        said += [f"It was made with {one}." for one in results["deviations"]]
        known = sets.of_challenge(results["challenge"])
        if known.replay_batch is not None and provenance["official-batching"] is not True:
            said.append("It was made without --official-batching.")
        library = [str(one) for one in check_library(Library.of(provenance["library"]), [])]
        said += [_of_run(one) for one in library if one not in run | set(results["unofficial"])]
    return said


def _of_rows(results: Mapping[str, Any]) -> list[str]:
    facts = {one["set"]: one for one in challenges.load(results["challenge"])["evaluation"]["sets"]}
    parts = [
        f"{one['title']} {one['rows']:,} of {facts[name]['rows']:,}"
        for name, one in results["sets"].items()
        if one["full"] is not True
    ]
    return [f"It is of a part of the rows: {', '.join(parts)}."] if parts else []


def _repeats(finding: Finding, of_run: bool, of_score: bool) -> bool:
    """Whether a finding only says again what a cause says."""
    key = finding.kind, finding.check
    if of_run and key in _OF_RUN:
        return True
    if not of_score:
        return False
    if key == ("score", "rows"):
        return "official rows" in finding.sentence
    return key in _OF_SCORE and (finding.place == layout.SCORES or finding.place.endswith(_TOLD))


def typed(problems: Iterable[Problem]) -> bool:
    """Whether something on the command line is wrong or missing."""
    return any(problem.about == COMMAND for problem in problems)
