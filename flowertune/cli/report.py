"""One page about a run: ``python -m flowertune.report``."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import write_atomically
from flowertune.config.read import add_settings_arguments, default_settings
from flowertune.run.files import read_run
from flowertune.run.find import run_named

DESCRIPTION = """\
Write one HTML page about a run: official or not and why, plots of loss, learning rate and
communication, settings, data, checkpoints with their sha256, every round, package versions. The
page is one file with no scripts that loads nothing: open it anywhere, mail it, put it online. A run
that still goes on is shown as far as it is."""
EPILOG = """\
examples:
  python -m flowertune.report                        the run that started last
  python -m flowertune.report results/123456         a run by its folder (or its id)
  python -m flowertune.report --output run.html      write the page elsewhere
  python -m flowertune.report --tensorboard events   write event files for TensorBoard as well"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _report(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = error.filename or "the page"
        print(
            f"error: {where}: {error.strerror or error}; choose another place with --output.",
            file=sys.stderr,
        )
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.report",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", nargs="?", help="a run's folder or id (default: the run that started last)")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="the page (default: report.html in the run's folder)",
    )
    add("--tensorboard", type=Path, metavar="DIR", help="also write TensorBoard event files there")
    add_settings_arguments(parser)
    return parser


def _report(arguments: argparse.Namespace) -> None:
    from flowertune.loggers.tensorboard import write_events
    from flowertune.report.facts import collect
    from flowertune.report.page import page

    run = read_run(run_named(arguments))
    output = arguments.output or run.folder / "report.html"
    write_atomically(output, page(collect(run, _defaults(arguments.app))))
    print(output)
    if arguments.tensorboard:
        write_events(arguments.tensorboard, run.rounds)
        print(f"{arguments.tensorboard}: tensorboard --logdir {arguments.tensorboard}")


def _defaults(app: Path) -> Mapping[str, Any] | None:
    try:
        return default_settings(app)
    except UserError:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
