"""Show a run until it ends: as a picture in a terminal, else as plain lines."""

import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from flowertune.run.files import RunFiles, read_run
from flowertune.watch import lines
from flowertune.watch.view import picture


def follow(folder: Path, once: bool, interval: float) -> int:
    """Show the run in ``folder`` until it ends, or once; looks every ``interval`` seconds.

    Returns
    -------
    int
        1 if the run has failed or was interrupted, else 0.

    Raises
    ------
    UserError
        If the folder is not that of a run.
    """
    console = Console(highlight=False)
    run = read_run(folder)
    if console.is_terminal:
        run = _live(console, run, once, interval)
    else:
        run = _plain(run, once, interval)
    return int(run.status in ("failed", "interrupted"))


def _live(console: Console, run: RunFiles, once: bool, interval: float) -> RunFiles:
    if once or run.status != "running":
        console.print(picture(run, console.width))
        return run
    with Live(picture(run, console.width), console=console, auto_refresh=False) as live:
        while run.status == "running":
            time.sleep(interval)
            run = read_run(run.folder)
            live.update(picture(run, console.width), refresh=True)
    return run


def _plain(run: RunFiles, once: bool, interval: float) -> RunFiles:
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
