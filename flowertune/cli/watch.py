"""Watch a run: ``python -m flowertune.watch``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.config.read import add_settings_arguments
from flowertune.run.files import Recorded, read_run
from flowertune.run.find import run_named
from flowertune.watch import lines

DESCRIPTION = """\
Show a run while it goes on, or after it has ended: rounds, loss, clients, communication, tokens/s,
time left. It reads the files in the run's folder and changes nothing: leave it with Ctrl-C and come
back at any time, or watch from several terminals. Where there is no terminal (a file, a pipe), it
writes one plain line a round."""
EPILOG = """\
examples:
  python -m flowertune.watch                   the run that started last
  python -m flowertune.watch 1234567890        a run by its id (flwr list)
  python -m flowertune.watch results/123456    a run by its folder
  python -m flowertune.watch --once            how it stands now

The exit status is 1 if the run has failed or was interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.interval <= 0:
            raise UserError(f"--interval is {arguments.interval}; give seconds above 0.")
        return _watch(run_named(arguments), arguments.once, arguments.interval)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.watch",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run", nargs="?", help="a run's id or folder (default: the run that started last)")
    add("--once", action="store_true", help="show how the run stands, and end")
    add(
        "--interval", type=float, default=1.0, metavar="S", help="look every S seconds (default: 1)"
    )
    add_settings_arguments(parser)
    return parser


def _watch(folder: Path, once: bool, interval: float) -> int:
    from rich.console import Console

    console = Console(highlight=False)
    run = read_run(folder)
    if console.is_terminal:
        run = _live(console, run, once, interval)
    else:
        run = _plain(run, once, interval)
    return int(run.status in ("failed", "interrupted"))


def _live(console: Any, run: Recorded, once: bool, interval: float) -> Recorded:
    from rich.live import Live

    from flowertune.watch.view import picture

    if once or run.status != "running":
        console.print(picture(run, console.width))
        return run
    with Live(picture(run, console.width), console=console, auto_refresh=False) as live:
        while run.status == "running":
            time.sleep(interval)
            run = read_run(run.folder)
            live.update(picture(run, console.width), refresh=True)
    return run


def _plain(run: Recorded, once: bool, interval: float) -> Recorded:
    print(lines.head(run), flush=True)
    said = 0
    while True:
        for line in run.rounds:
            if line["round"] > said:
                print(lines.round_line(run, line), flush=True)
                said = line["round"]
        if once or run.status != "running":
            print(lines.state(run), flush=True)
            return run
        time.sleep(interval)
        run = read_run(run.folder)


if __name__ == "__main__":
    raise SystemExit(main())
