"""``flowertune runs``: the runs of an app."""

import os
from pathlib import Path
from typing import Any

from flowertune.cli.options import AppFolder, RunConfig
from flowertune.config.read import read_settings
from flowertune.config.results import results_root
from flowertune.run.files import UnreadableRun, read_run
from flowertune.run.find import run_folders

COLUMNS = ("run", "status", "round", "loss", "MiB", "official", "started")
EXAMPLES = """\b
examples:
  flowertune runs                              in the app's folder
  flowertune runs --app ~/my-finance           from anywhere
  flowertune runs --run-config "results-dir='/data/results'"
"""


def runs(app: AppFolder = Path(), run_config: RunConfig = None) -> None:
    """List the app's runs, the one that started last at the end.

    Each with its status, the rounds that have finished, the last training loss, the MiB that were
    communicated, and whether it is official. More about one of them: flowertune watch, flowertune
    report.
    """
    root = results_root(read_settings(app, run_config), app.resolve(), os.environ)
    rows = [_row(folder) for folder in run_folders(root)]
    if not rows:
        print(f"There are no runs in {root} yet.")
        return
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for row in (COLUMNS, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print(f"\nIn {root}")


def _row(folder: Path) -> tuple[str, ...]:
    try:
        run = read_run(folder)
    except UnreadableRun:
        return (folder.name, "damaged", *["-"] * (len(COLUMNS) - 2))
    loss, communicated = run.last.get("train-loss"), run.last.get("total-mib")
    return (
        folder.name,
        run.status,
        f"{run.last.get('round', 0)}/{run.planned}",
        "-" if loss is None else f"{loss:.4f}",
        "-" if communicated is None else f"{communicated:,.1f}",
        _yes_or_no(run.about.get("official")),
        str(run.about.get("started", "-"))[:19].replace("T", " "),
    )


def _yes_or_no(value: Any) -> str:
    return "yes" if value is True else "no"
