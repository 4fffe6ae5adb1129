"""``flowertune watch``: a run while it goes on."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import AppFolder, RunConfig, RunName
from flowertune.config.read import read_settings
from flowertune.config.results import results_root
from flowertune.run.find import home_of, run_named
from flowertune.watch.coming import run_to_come

EXAMPLES = """\b
examples:
  flowertune watch                   the run that started last
  flowertune watch 1234567890        a run by its id (flowertune runs)
  flowertune watch results/123456    a run by its folder
  flowertune watch --once            how it stands now

The exit status is 1 if the run has failed, was stopped or interrupted.
"""


def watch(
    run: RunName = None,
    once: Annotated[bool, typer.Option("--once", help="Show how the run stands, and end.")] = False,
    interval: Annotated[float, typer.Option(metavar="S", help="Look every S seconds.")] = 1.0,
    app: AppFolder = Path(),
    run_config: RunConfig = None,
) -> int:
    """Show a run (its id, or its folder) while it goes on, or after it has ended.

    Rounds, loss, clients, communication, tokens/s, time left, and how far the round is. It reads
    the files in the run's folder and changes nothing: leave it with Ctrl-C and come back at any
    time, or watch from several terminals. Where there is no terminal (a file, a pipe), it writes a
    line a round.
    """
    if interval <= 0:
        raise UserError(f"--interval is {interval}; give seconds above 0.")
    # Late: rich's live display is for those who watch.
    from flowertune.watch.follow import follow

    try:
        folder = (None if run else _coming(app, run_config, once, interval)) or run_named(
            run, app, run_config
        )
        return follow(folder, once, interval, home_of(folder, app))
    except KeyboardInterrupt:
        return 0  # the way to leave it


def _coming(app: Path, run_config: list[str] | None, once: bool, interval: float) -> Path | None:
    """The run that is being started, if `flwr run` was just typed; says that it waits."""
    told = []

    def wait(seconds: float) -> bool:
        if not told:
            told.append(True)
            print(
                f"flwr run was typed {seconds:.0f} s ago; Flower is starting the run, which has "
                "written nothing yet …",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        if not once:
            time.sleep(interval)
        return not once

    root = results_root(read_settings(app, run_config), app.resolve(), os.environ)
    return run_to_come(app, root, wait)
