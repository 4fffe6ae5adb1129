"""``flowertune watch``: a run while it goes on."""

from pathlib import Path
from typing import Annotated

import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import AppFolder, RunConfig, RunName
from flowertune.run.find import home_of, run_named

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
    folder = run_named(run, app, run_config)
    # Late: rich's live display is for those who watch.
    from flowertune.watch.follow import follow

    try:
        return follow(folder, once, interval, home_of(folder, app))
    except KeyboardInterrupt:
        return 0  # the way to leave it
