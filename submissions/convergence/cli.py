"""`python -m evaluation.reference`: a band of reference runs, as a file."""

import argparse
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import write_json
from flowertune.base.text import counted
from submissions.convergence import bands
from submissions.convergence.reference import Reference, read_reference
from submissions.convergence.runs import Run, differing, read_run

_DESCRIPTION = """\
Make a band of reference runs: how fast the loss of honest runs falls. They are runs of the default
app under one version of the rules, with the same settings and seeds of their own; ten or more per
challenge and base model. A submission whose loss falls faster than the band is flagged by
`python -m evaluation.verify`, for a look; it is not refused.
"""
_EPILOG = """\
examples:
  # look at the band
  python -m evaluation.reference results/A results/B results/C
  # publish it, with the next release
  python -m evaluation.reference results/* -o \\
    challenges/published/50-supernodes-1.0.0-convergence.json
  # or keep it to yourself, and verify with it
  python -m evaluation.reference results/* -o band.json

exit status: 0 the band was made, 2 the command line is wrong, or the runs make no band.
"""
NOT_DONE = 2


def parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    options = argparse.ArgumentParser(
        prog="python -m evaluation.reference",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = options.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write the bands there; those of other challenges and models in it stay",
    )
    add("--force", action="store_true", help="replace a band that is in the file already")
    add("--unofficial", action="store_true", help="take runs that are not official, too")
    return options


def make(runs: Sequence[Run], into: Reference | None = None) -> Reference:
    """Return the bands of runs, added to those that there are.

    Raises:
        UserError: what keeps a band from being made; all of it at once.
    """
    versions = sorted({(run.rules, run.version) for run in runs})
    if len(versions) > 1 or (into and versions != [(into.rules, into.version)]):
        known = versions + ([(into.rules, into.version)] if into else [])
        named = ", ".join(" ".join(one) for one in dict.fromkeys(known))
        raise UserError(f"the runs and the file are of several rules ({named}): use one at a time")
    made, problems = into or Reference(*versions[0]), []
    for key, group in groupby(sorted(runs, key=lambda run: run.key), key=lambda run: run.key):
        together = list(group)
        named = f"{key[2]} with {key[3]}"
        if names := differing(together):
            problems.append(f"the runs of {named} differ in {', '.join(names)}")
            continue
        try:
            made.add(key[2], key[3], [run.curve for run in together], together[0].settings)
        except ValueError as error:
            problems.append(f"{named}: {error}")
    if problems:
        raise UserError("; ".join(problems))
    return made


def run(arguments: argparse.Namespace) -> Reference:
    """Make the bands, print and write them.

    Raises:
        UserError: a run cannot be used, or the file cannot be read or written.
    """
    runs = [read_run(folder) for folder in dict.fromkeys(arguments.runs)]
    unofficial = [str(run.folder) for run in runs if not run.official]
    if unofficial and not arguments.unofficial:
        raise UserError(
            f"{', '.join(unofficial)}: not official, and a band is of runs that keep the rules; "
            "take them all the same with --unofficial"
        )
    output: Path | None = arguments.output
    there = read_reference(output) if output is not None and output.exists() else None
    if there is not None and not arguments.force:
        _keep(output, there, runs)
    made = make(runs, there)
    for _, _, challenge, model in sorted({run.key for run in runs}):
        print(text(made, challenge, model))
    if output is not None:
        try:
            write_json(output, made.record())
        except OSError as error:
            raise UserError(
                f"{output} cannot be written ({error.strerror}): name another file with --output"
            ) from None
        print(f"Written: {output}")
    return made


def _keep(file: Path | None, there: Reference, runs: Sequence[Run]) -> None:
    """Refuse to make a band anew that a file has."""
    keys = dict.fromkeys((run.key[2], run.key[3]) for run in runs)
    if known := [f"{one} with {model}" for one, model in keys if model in there.found.get(one, {})]:
        raise UserError(
            f"{file} has a band of {', '.join(known)} already, which is not replaced: name another "
            "file with --output, or say --force"
        )


def text(made: Reference, challenge: str, model: str) -> str:
    """Return a band as a table."""
    band = made.found[challenge][model]
    head = (
        f"{challenge} with {model}, rules {made.rules} {made.version}: "
        f"{counted(band['runs'], 'run')} of {counted(band['rounds'], 'round')}"
    )
    if band["runs"] < bands.ENOUGH:
        head += f" (few: {bands.ENOUGH} or more make a narrower band)"
    lines = [head, f"{'rounds':>11}  {'mean loss':>9}  {'deviation':>9}  {'flagged below':>13}"]
    lines += [
        f"{one['first']:>5}-{one['last']:<5}  {one['mean']:>9.4f}  {one['deviation']:>9.4f}  "
        f"{one['limit']:>13.4f}"
        for one in band["stretches"]
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; exits with 2 and one sentence on stderr if it cannot be done."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        run(arguments)
    except UserError as error:
        print(f"error: {str(error).rstrip('.')}.", file=sys.stderr)
        sys.exit(NOT_DONE)
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        sys.exit(130)
