"""Show a run until it ends: as a picture in a terminal, else as plain lines."""

import time
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live

from flowertune.run.files import RunFiles, read_run
from flowertune.watch import lines
from flowertune.watch.view import picture

SAY_EVERY = 60.0  # seconds between two lines about a round that goes on


def follow(folder: Path, once: bool, interval: float, app: Path | None = None) -> int:
    """Show the run in ``folder`` until it ends, or once; looks every ``interval`` seconds.

    Parameters
    ----------
    app : Path | None
        The app's own folder.

    Returns
    -------
    int
        0 if the run goes on or has finished, else 1.

    Raises
    ------
    UserError
        If the folder is not that of a run.
    """
    console = Console(highlight=False)
    run = read_run(folder)
    if console.is_terminal:
        run = _live(console, run, once, interval, app)
    else:
        run = _plain(run, once, interval, app)
    return int(run.status not in ("running", "finished"))


def _live(
    console: Console, run: RunFiles, once: bool, interval: float, app: Path | None
) -> RunFiles:
    def shown() -> RenderableType:
        return picture(run, console.width, app=app)

    if once or run.status != "running":
        console.print(shown())
        return run
    with Live(shown(), console=console, auto_refresh=False) as live:
        while run.status == "running":
            time.sleep(interval)
            run = read_run(run.folder)
            live.update(shown(), refresh=True)
    return run


def _plain(run: RunFiles, once: bool, interval: float, app: Path | None) -> RunFiles:
    print(lines.head(run), flush=True)
    said, told, at = 0, "", time.monotonic()
    while True:
        for line in run.rounds:
            if line["round"] > said:
                print(lines.round_line(run, line), flush=True)
                said = line["round"]
        if once or run.status != "running":
            print(lines.state(run, app), flush=True)
            return run
        doing = lines.just_now(run)
        if doing.partition(" in ")[0] != told and time.monotonic() - at >= SAY_EVERY:
            print(doing, flush=True)
            told, at = doing.partition(" in ")[0], time.monotonic()
        time.sleep(interval)
        run = read_run(run.folder)
