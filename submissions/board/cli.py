"""The command ``python -m evaluation.leaderboard``."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import challenges
from flowertune.base.errors import UserError
from flowertune.base.text import counted, one_line
from submissions import tiers
from submissions.formats.benchmarks import OWNER, dataset
from submissions.inputs import all_at_once, check_bundles
from submissions.outputs import taken

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

exit status: 0 it was made (INVALID bundles are on the site), 2 the command line is wrong (as where
there is no such bundle), or it could not be made; then nothing is written.
"""
_SHOWN = 5
_WARNINGS = 20  # that are printed; all are on the site
NOT_DONE = 2
_FOR_CODABENCH = ("challenge", "image", "start")


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
    add(
        "-o", "--output", type=Path, metavar="DIR",
        help="write the site there, in the place of the one that is there",
    )  # fmt: skip
    add("--empty", action="store_true", help="with -o and no BUNDLE: a board that waits for one")
    add(
        "--force",
        action="store_true",
        help="let --codabench and --eval-yaml replace files that are there",
    )
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
    add("--challenge", metavar="NAME", help="of the competition")
    add(
        "--rules",
        default="50-supernodes",
        metavar="NAME",
        help="of the competition (default: %(default)s)",
    )
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
    add(
        "--owner",
        metavar="NAME",
        help="whose these datasets are on the hub; bundles name them with submit's --benchmarks "
        f"NAME (its default: {OWNER})",
    )
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    arguments = parser().parse_args(argv)
    try:
        _check(arguments)
        if arguments.output is not None:
            _site(arguments)
        if arguments.codabench is not None:
            _codabench(arguments)
        if arguments.eval_yaml is not None:
            _eval_yaml(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_DONE
    except KeyboardInterrupt:
        print("stopped; what is named above was written, and nothing else", file=sys.stderr)
        return 130
    return 0


def _check(arguments: argparse.Namespace) -> None:
    wrong = [*_of_site(arguments), *_of_codabench(arguments), *_of_eval_yaml(arguments)]
    if wrong:
        raise UserError(" ".join(wrong))


def _of_site(arguments: argparse.Namespace) -> list[str]:
    """What is wrong with the options of the site."""
    output, given = arguments.output, arguments.bundles
    if output is None:
        if given:
            return ["Bundles are given, and no folder for the site: name one with -o."]
        asked = (arguments.codabench, arguments.eval_yaml)
        none = "Nothing is asked for: give bundles and -o, or --codabench, or --eval-yaml."
        return [none] if asked == (None, None) else []
    wrong = []
    if not given and not arguments.empty:
        wrong.append("No bundle is given: name zips, or say --empty for a board without any.")
    if given and arguments.empty:
        wrong.append("--empty is for a board without bundles: leave it out, or them.")
    # Late: pages need more than a wrong command line does.
    from submissions.board.site import check_target

    try:
        all_at_once(lambda: check_bundles(given), lambda: check_target(output))
    except UserError as error:
        wrong.append(str(error))
    return wrong


def _of_codabench(arguments: argparse.Namespace) -> list[str]:
    """What is wrong with the options of the competition bundle."""
    if arguments.codabench is None:
        return [
            f"--{name} is for a competition bundle: name its file with --codabench."
            for name in _FOR_CODABENCH
            if getattr(arguments, name) is not None
        ]
    # Late: it draws a picture, and a board needs nothing of it.
    from submissions.board.eval_yaml import scored

    wrong = []
    if arguments.challenge is None:
        wrong.append("--codabench needs --challenge: say which one it is for.")
    elif arguments.challenge not in scored():
        wrong.append(
            f"--challenge is {one_line(repr(arguments.challenge), 60)}: use one of "
            f"{', '.join(scored())}."
        )
    if arguments.rules not in challenges.rule_sets():
        wrong.append(
            f"--rules is {one_line(repr(arguments.rules), 60)}: use one of "
            f"{', '.join(challenges.rule_sets())}."
        )
    if arguments.image is None:
        wrong.append("--codabench needs --image: name a container image that has this library.")
    try:
        date.fromisoformat(arguments.start or "2026-01-01")
    except ValueError:
        wrong.append(
            f"--start is {one_line(repr(arguments.start), 60)}: give a day, such as 2026-12-31."
        )
    return wrong + ([] if arguments.force else taken([arguments.codabench], "--codabench"))


def _of_eval_yaml(arguments: argparse.Namespace) -> list[str]:
    """What is wrong with the options of the benchmark datasets."""
    if arguments.eval_yaml is None:
        unused = "--owner is for benchmark datasets: name their folder with --eval-yaml."
        return [unused] if arguments.owner is not None else []
    wrong = []
    if arguments.owner is None:
        wrong.append(
            "--eval-yaml needs --owner: say whose the datasets are on the hub (bundles name those "
            f"of {OWNER}, unless they were made with --benchmarks)."
        )
    from submissions.board.eval_yaml import files_in

    if not arguments.force:
        wrong += taken(files_in(arguments.eval_yaml), "--eval-yaml")[:1]
    return wrong


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
    warnings = [
        f"look at {one_line(entry.bundle, 200)}: {one_line(finding.sentence, 500)}"
        for entry in entries
        for finding in entry.findings
        if finding.level == "warning"
    ]
    print("\n".join(warnings[:_WARNINGS]), end="\n" if warnings else "")
    if len(warnings) > _WARNINGS:
        print(f"and {len(warnings) - _WARNINGS:,} more warnings, on the pages of the submissions")
    for one in refused:
        errors = [finding for finding in one.findings if finding.level == "error"]
        more = f" (and {counted(len(errors) - 1, 'more error')})" if len(errors) > 1 else ""
        print(f"INVALID {one.bundle}: {one_line(errors[0].sentence, 300)}{more}")
    known = {one.digest for one in (*entries, *refused)}
    if unknown := sorted(standings.reports.keys() - known):
        named = ", ".join(digest[:16] for digest in unknown[:_SHOWN])
        print(f"{counted(len(unknown), 'report')} on none of these bundles, or on another version "
              f"of one, without effect: digest {named}")  # fmt: skip
    index = arguments.output / "index.html"
    reached = [entry.tier for entry in entries]
    how = ", ".join(f"{reached.count(name)} {name}" for name in tiers.NAMES if name in reached)
    print(f"{counted(len(entries), 'submission')} ranked{f' ({how})' if how else ''}, "
          f"{len(refused)} not: {index}")  # fmt: skip
    place = shlex.quote(str(arguments.output))
    print(f"Next: open {index}, put the folder on a web server, or serve it at /board/:\n"
          f"  python -m challenges.hub serve --site {place}")  # fmt: skip


def _codabench(arguments: argparse.Namespace) -> None:
    from submissions.board.codabench import write_competition

    write_competition(
        arguments.codabench, arguments.challenge, arguments.rules, arguments.image,
        arguments.start,
    )  # fmt: skip
    print(f"competition bundle: {arguments.codabench}")
    print(f"Next: upload it on Codabench as a new competition, which runs the verifier in "
          f"{arguments.image}: publish that image with flowertune in it.")  # fmt: skip


def _eval_yaml(arguments: argparse.Namespace) -> None:
    from submissions.board.eval_yaml import write_datasets

    files = write_datasets(arguments.eval_yaml, arguments.owner)
    for file in files:
        print(f"benchmark dataset: {file}")
    name, folder = files[0].parent.name, shlex.quote(str(files[0].parent))
    hub = dataset(name.removeprefix("flowertune-"), arguments.owner)
    print(f"Next: upload each folder to the hub, as in\n"
          f"  hf upload {hub} {folder} --repo-type dataset  # (account, hub)\n"
          f"participants name them with submit's --benchmarks {arguments.owner}")  # fmt: skip
