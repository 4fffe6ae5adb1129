"""`python -m evaluation.all`: several checkpoints, or several challenges, and few model loads."""

import argparse
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from evaluation import checkpoint as checkpoints
from evaluation import cli, sets
from evaluation.evaluate import score
from evaluation.job import Job, prepare
from evaluation.session import Session, order
from flowertune.base.errors import UserError
from flowertune.base.text import counted

_DESCRIPTION = """\
Score several checkpoints with one command, each as the command of its own challenge would.

A base model is loaded once for all checkpoints that were trained on it and are scored with the same
quantization: only the adapter changes. Everything is checked before the first model is loaded. A
score that fails does not keep the others from being made, and a command that was stopped goes on
where it was.
"""
_EPILOG = """\
examples:
  # the checkpoints of several challenges, on the same base model (GPU, hub)
  python -m evaluation.all results/RUN/peft_200 results/RUN/peft_100 --official-batching
  # one checkpoint on every challenge: unofficial for all but its own (GPU, hub)
  python -m evaluation.all results/RUN/peft_200 --challenges all --unofficial
  # a model without a checkpoint on two challenges (GPU, hub)
  python -m evaluation.all --model mistralai/Mistral-7B-v0.3 --challenges finance,medical
  # the small samples of all challenges
  python -m evaluation.all results/RUN/peft_10 --challenges all --sample --unofficial \\
    --quantization 0 --answer-tokens 16
"""


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.all",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = options.add_argument
    add(
        "checkpoints",
        nargs="*",
        type=Path,
        metavar="CKPT",
        help="folders peft_<round>; the folder of a run stands for its last one",
    )
    names = sets.scored_challenges()
    add(
        "--challenges",
        metavar="A,B",
        help=f"all, or some of {','.join(names)} (default: the one that each CKPT was trained for; "
        "all for a model alone)",
    )
    add("--suite", choices=sets.SUITES, default="official", help="default: %(default)s")
    add("--limit", type=int, metavar="N", help="only the first N rows of each set")
    add(
        "--training-data",
        choices=["hub"],
        help="fetch the training rows of each challenge, to compare the evaluation rows with them "
        "(default: those in the hub's cache)",
    )
    cli.add_shared(options, [sets.of_challenge(name) for name in names])
    return options


def requests(arguments: argparse.Namespace) -> list[tuple[str, argparse.Namespace]]:
    """Return a challenge and the options of its own command for each score that is asked for.

    Raises:
        UserError: names what is asked for in vain; all of it at once.
    """
    if not arguments.checkpoints and arguments.model is None:
        raise UserError("nothing to score: give checkpoint folders, or a model with --model")
    wanted, problems = _wanted(arguments.challenges), []
    asked = []
    for given in dict.fromkeys(arguments.checkpoints) or [None]:
        names = wanted
        if names is None:
            try:
                names = sets.scored_challenges() if given is None else [_own(given)]
            except UserError as error:
                problems.append(str(error))
                continue
        asked += [(name, options_of(name, arguments, given)) for name in names]
    _raise(problems)
    return asked


def _own(checkpoint: Path) -> str:
    own = checkpoints.trained_for(checkpoints.find(checkpoint))
    if own not in sets.scored_challenges():
        raise UserError(
            f"{checkpoint} does not say which challenge it was trained for: name one with "
            "--challenges"
        )
    return str(own)


def _wanted(given: str | None) -> list[str] | None:
    if given is None:
        return None
    there = sets.scored_challenges()
    names = there if given == "all" else [name.strip() for name in given.split(",")]
    wrong = [name for name in names if name not in there]
    if wrong:
        raise UserError(
            f"--challenges {given} names no challenge that is scored: {', '.join(wrong)}; give "
            f"all, or some of {','.join(there)}"
        )
    return list(dict.fromkeys(names))


def options_of(
    challenge: str, arguments: argparse.Namespace, checkpoint: Path | None
) -> argparse.Namespace:
    """Return the options with which a challenge's own command makes the same score."""
    options, given = cli.parser(challenge), vars(arguments)
    words = [] if checkpoint is None else [str(checkpoint)]
    for action in options._actions:
        value = given.get(action.dest)
        if not action.option_strings or value is None or value == action.default:
            continue
        words += [action.option_strings[0], *([] if action.nargs == 0 else [str(value)])]
    made = options.parse_args(words)
    made.words = words
    return made


def score_all(arguments: argparse.Namespace) -> bool:
    """Make all scores that are asked for; returns whether all could be made.

    Raises:
        UserError: what is wrong with any of them, before a model is loaded.
    """
    with ExitStack() as opened:
        jobs, problems = [], []
        for challenge, options in requests(arguments):
            try:
                jobs.append(prepare(challenge, options, opened))
            except UserError as error:
                problems.append(f"{error} (for {challenge})")
        _raise(list(dict.fromkeys(problems)))
        session, done = Session(), []
        for number, job in enumerate(jobs := order(jobs), start=1):
            print(f"\n{number} of {len(jobs)}: {job.name}", flush=True)
            try:
                done.append((job, score(job, session)))
            except UserError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
        session.remove_stores()
        _print_summary(done, session.loads)
    return len(done) == len(jobs)


def _print_summary(done: list[tuple[Job, dict[str, Any]]], loads: int) -> None:
    if not done:
        return
    # Late: it imports lm-eval.
    from evaluation.report import NAMES

    print(f"\n{counted(len(done), 'score')}, {counted(loads, 'model load')}:")
    for job, results in done:
        means = results["average"]["scores"]
        shown = ", ".join(f"{NAMES[name]} {means[name]['score']}" for name in job.models)
        mark = "" if results["published-average"] is not None else " (see its notes)"
        print(f"  {job.name}: {shown}{mark}  {shlex.quote(str(job.folder / 'results.json'))}")


def _raise(problems: list[str]) -> None:
    if problems:
        raise UserError("; ".join(problems))


def main(argv: list[str] | None = None) -> None:
    """Run the command; exits with 1 if a score could not be made."""
    arguments = parser().parse_args(argv)
    with cli.ending_in_a_sentence():
        if not score_all(arguments):
            sys.exit(1)


if __name__ == "__main__":
    main()
