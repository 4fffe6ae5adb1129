"""What ``python -m evaluation.verify`` takes and does for a re-score."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from flowertune.base.errors import UserError
from submissions import tiers
from submissions.archive import opened
from submissions.findings import Report, ordered
from submissions.replay.draw import new_nonce, seed_of

_MOST = 1_000_000  # more rows than any set has


def add_options(options: argparse.ArgumentParser) -> None:
    """Add the options of a re-score to those of verify."""
    group = options.add_argument_group("re-score: some rows answered again by the real model")
    add = group.add_argument
    add(
        "--rescore",
        type=int,
        metavar="N",
        help="answer N rows of each set again, drawn now, of every bundle that is VALID",
    )
    add("--nonce", metavar="WORD", help="your word for the draw (default: a new one, printed)")
    add("--model", type=Path, metavar="DIR", help="your copy of the base model (default: the hub)")
    add("--data-dir", type=Path, metavar="DIR", help="your sets, as <set>.jsonl (default: the hub)")
    add("--device", help='such as "cuda:1" (default: the GPU if there is one)')
    add(
        "--tie",
        type=float,
        metavar="X",
        help="how far below the best token another may be, in logits, to be taken for rounding",
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises
    ------
    UserError
        With what is wrong.
    """
    if arguments.rescore is None:
        names = ("nonce", "model", "data_dir", "device", "tie")
        given = [f"--{n.replace('_', '-')}" for n in names if getattr(arguments, n) is not None]
        if given:
            belong = "belongs" if len(given) == 1 else "belong"
            raise UserError(f"{', '.join(given)} {belong} to a re-score: say how many rows with "
                            "--rescore.")  # fmt: skip
    elif not 1 <= arguments.rescore <= _MOST:
        raise UserError(f"--rescore is {arguments.rescore}; use a number of rows from 1.")
    elif arguments.nonce is not None and not arguments.nonce.isprintable():
        raise UserError("--nonce holds control characters; use a word.")
    if arguments.nonce is None:
        arguments.nonce = new_nonce()


def rescored(report: Report, path: Path, arguments: argparse.Namespace) -> Report:
    """Return the report of a bundle with what a re-score found; as it is if it is INVALID.

    Raises
    ------
    UserError
        Model, weights or sets cannot be had.
    """
    if not report.valid:
        return report
    # Late: the scorer takes seconds to import.
    from submissions.rescore.again import Wanted
    from submissions.rescore.rescore import rescore

    wanted = Wanted(arguments.model, arguments.data_dir, arguments.device)
    with opened(path) as bundle:
        found = rescore(
            bundle, arguments.rescore, arguments.nonce, wanted, arguments.tie,
            lambda text: print(text, file=sys.stderr, flush=True),
        )  # fmt: skip
        seed = seed_of(bundle.digest, arguments.nonce)
    drawn = {"rows": arguments.rescore, "nonce": arguments.nonce, "seed": seed}
    return replace(
        report,
        findings=ordered([*report.findings, *found]),
        tier=tiers.RESCORED,
        facts={**report.facts, "re-score": drawn},
    )
