"""The command ``python -m evaluation.leaderboard``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.text import counted

_DESCRIPTION = """\
Make a board out of bundles: each is verified, the VALID ones are ranked, the INVALID ones are
listed apart with what was found. The site is static: open index.html, or put the folder on any web
server; `python -m challenges.hub serve --site DIR` serves it, too.
"""
_EPILOG = """\
examples:
  python -m evaluation.leaderboard bundles/*.zip -o site/
  # with what re-scoring and replays found, and those of another party
  python -m evaluation.leaderboard bundles/*.zip --reports reports/*.json --party lab.pub -o site/
  # the forms of two hosts
  python -m evaluation.leaderboard --codabench finance.zip --challenge finance --image IMAGE
  python -m evaluation.leaderboard --eval-yaml datasets/ --owner ORGANIZATION

exit status: 0 where it was made (INVALID bundles are on the site), 2 where it could not be.
"""


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.leaderboard",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = options.add_argument
    add("bundles", nargs="*", type=Path, metavar="BUNDLE", help="a zip, or its unpacked folder")
    add("-o", "--output", type=Path, metavar="DIR", help="write the site there")
    add("--title", default="FlowerTune board", help="the site's name (default: %(default)s)")
    add(
        "--reports",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="what `verify --rescore N --format json` or `replay --report FILE` wrote: they give "
        "the tiers above consistent",
    )
    add(
        "--own",
        nargs="+",
        type=Path,
        default=[],
        metavar="KEY",
        help="your public keys, for reports that you signed",
    )
    add(
        "--party",
        nargs="+",
        type=Path,
        default=[],
        metavar="KEY",
        help="public keys of other parties: a replay that one of them signed makes a submission "
        "reproduced; the file's name is what the party is called",
    )
    add(
        "--reference",
        type=Path,
        metavar="FILE",
        help="hold losses against these reference runs, as python -m evaluation.reference wrote "
        "them (default: those that are published with the rules)",
    )
    add("--codabench", type=Path, metavar="FILE", help="write a competition bundle for Codabench")
    add("--challenge", help="of the competition")
    add("--rules", default="50-supernodes", help="of the competition (default: %(default)s)")
    add(
        "--image",
        metavar="NAME",
        help="the container image in which Codabench runs the verifier, with this library in it",
    )
    add("--start", metavar="DATE", help="when the competition begins (default: today)")
    add(
        "--eval-yaml",
        type=Path,
        metavar="DIR",
        help="write eval.yaml for a benchmark dataset of each challenge, for Hugging Face",
    )
    add("--owner", metavar="NAME", help="of these datasets on the hub")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        _check(arguments)
        if arguments.output is not None:
            _site(arguments)
        if arguments.codabench is not None:
            # Late: a board needs nothing of it.
            from submissions.board.codabench import write_competition

            write_competition(
                arguments.codabench, arguments.challenge, arguments.rules, arguments.image,
                arguments.start,
            )  # fmt: skip
            print(f"competition bundle: {arguments.codabench}")
        if arguments.eval_yaml is not None:
            from submissions.board.eval_yaml import write_datasets

            for file in write_datasets(arguments.eval_yaml, arguments.owner):
                print(f"benchmark dataset: {file}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _check(arguments: argparse.Namespace) -> None:
    wrong = []
    if arguments.bundles and arguments.output is None:
        wrong.append("Bundles are given, and no folder for the site: name one with -o.")
    if arguments.codabench is not None:
        wrong += [
            f"--codabench needs --{name}: {what}."
            for name, what in (
                ("challenge", "say which one it is for"),
                ("image", "name the container image that has this library"),
            )
            if getattr(arguments, name) is None
        ]
    if all(getattr(arguments, name) is None for name in ("output", "codabench", "eval_yaml")):
        wrong.append("Nothing is asked for: give -o, --codabench or --eval-yaml.")
    if wrong:
        raise UserError(" ".join(dict.fromkeys(wrong)))


def _site(arguments: argparse.Namespace) -> None:
    # Late: the verifier takes a part of a second to import.
    from submissions.board.reading import read
    from submissions.board.site import write_site
    from submissions.board.standing import read_reports
    from submissions.convergence.reference import read_reference

    standings = read_reports(arguments.reports, arguments.own, arguments.party)
    reference = read_reference(arguments.reference) if arguments.reference else None
    entries, refused = read(arguments.bundles, standings, reference)
    write_site(arguments.output, arguments.title, entries, refused)
    for one in refused:
        errors = sum(finding.level == "error" for finding in one.findings)
        print(f"INVALID {one.bundle}: {counted(errors, 'error')}")
    print(f"{counted(len(entries), 'submission')} ranked, {len(refused)} not: "
          f"{arguments.output / 'index.html'}")  # fmt: skip
