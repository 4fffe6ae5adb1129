"""``flowertune runs``: the runs of an app, and two of them side by side."""

import os
from pathlib import Path
from typing import Annotated

import click
import typer

from flowertune.cli.options import AppFolder, RunConfig
from flowertune.config.read import read_settings
from flowertune.config.results import results_root
from flowertune.run.files import UnreadableRun, read_run
from flowertune.run.find import home_of, run_folders, run_named
from flowertune.run.origin import resume_command

COLUMNS = ("run", "status", "round", "loss", "MiB", "official", "started")
EXAMPLES = """\b
examples:
  flowertune runs                              in the app's folder
  flowertune runs 123456 234567                two runs, by id or folder, side by side
  flowertune runs --app ~/my-finance           from anywhere
  flowertune runs --run-config "results-dir='/data/results'"
"""


def runs(
    two: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN RUN]", show_default="all of them, as a list")
    ] = None,
    app: AppFolder = Path(),
    run_config: RunConfig = None,
) -> None:
    """List the app's runs, the one that started last at the end; or compare two.

    The list has each run's status, the rounds that have finished, the last training loss, the MiB
    that were communicated, and whether it is official. Two runs are compared by the settings that
    differ, rounds, loss, MiB, time, and scores. More about one: flowertune watch, flowertune
    report.
    """
    if two and len(two) != 2:
        raise click.UsageError(f"Give no run or two runs to compare, not {len(two)}.")
    if two:
        _compare(two, app, run_config)
    else:
        _list(app, run_config)


def _compare(two: list[str], app: Path, run_config: list[str] | None) -> None:
    folders = [run_named(name, app, run_config) for name in two]
    # Late: the scores are for those who compare.
    from flowertune.report.compare import compare

    places = [Path.cwd(), *(home for f in folders if (home := home_of(f, app)))]
    rows = compare(read_run(folders[0]), read_run(folders[1]), places)
    print("\n".join(_aligned(rows)))


def _list(app: Path, run_config: list[str] | None) -> None:
    root = results_root(read_settings(app, run_config), app.resolve(), os.environ)
    folders = run_folders(root)
    if not folders:
        print(f"There are no runs in {root} yet.")
        return
    rows = [_row(folder) for folder in folders]
    print("\n".join(_aligned([COLUMNS, *rows])))
    print(f"\nIn {root}")
    if rows[-1][1] in ("stopped", "interrupted", "failed"):
        command = resume_command(folders[-1], home_of(folders[-1], app))
        if command:
            print(f"To go on with {rows[-1][0]}: {command}")


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([c.ljust(width) for c, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(cells).rstrip() for cells in lines]


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
        {"official": "yes", "unofficial": "no"}.get(run.verdict, "-"),
        str(run.about.get("started", "-"))[:19].replace("T", " "),
    )
