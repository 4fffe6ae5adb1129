"""``flowertune compare``: methods, seeds and settings side by side, under one budget."""

import os
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import AppFolder, RunConfig, listed

EXAMPLES = """\b
examples:
  flowertune compare fedavg fedprox:mu=0.1 ffa-lora --run-config quickstart.toml --supernodes 4
                                                       three methods, three seeds each
  flowertune compare fedavg ffa-lora --equal bytes --run-config quickstart.toml --supernodes 4
                                                       as many rounds as the bytes allow
  flowertune compare --grid compare.toml               all of it in a file
  flowertune compare fedavg --vary train.transport=float32,int8 --grid compare.toml
                                                       another method, and a setting that varies
  flowertune compare --grid compare.toml --partitioner iid --partitioner dirichlet:alpha=0.1
                                                       rows that are alike, and rows that are not
"""


def compare(
    methods: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METHOD[:OPTIONS]...]", show_default="those of --grid"),
    ] = None,
    grid: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A grid in TOML; options come before it.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,...", help="Seeds.", show_default="1,2,3")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=V,...", help="A setting and its values; may be given again."),
    ] = None,
    partitioner: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:OPTIONS]", help="How rows are dealt out; may be given again."),
    ] = None,
    run_config: RunConfig = None,
    supernodes: Annotated[
        int | None,
        typer.Option(metavar="N", help="SuperNodes.", show_default="as flowertune plan has it"),
    ] = None,
    equal: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What all have the same of: tokens, or bytes.",
            show_default="tokens",
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="MIB",
            help="The bytes of --equal bytes.",
            show_default="what the first method takes",
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            metavar="ARM,...",
            help="Reference arms: base, local, centralised; or none.",
            show_default="all three",
        ),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Rows to measure the loss on, not to train on; 0 for none.",
            show_default="0.1",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="ROWS",
            help="Score on the scorer's small sample, on full sets, or none.",
            show_default="sample",
        ),
    ] = None,
    score_options: Annotated[
        str | None, typer.Option(metavar="TEXT", help="More options for the scorer.")
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Runs at once, each with a model of its own.",
            show_default="as many as there are cores; 1 with a GPU",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(metavar="N", help="Threads of each; another number rounds otherwise.")
    ] = 1,
    app: AppFolder = Path(),
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to.", show_default="results/compare of the app"),
    ] = None,
) -> int:
    """Train the app with several methods, seeds and settings, and put the results in one table.

    Each run is the app's own, as flwr run does it: the same bits. They share one warm engine: no
    SuperLink, and a base model that is loaded once for each process.

    With --equal tokens every method trains on the same number of rows. With --equal bytes each has
    as many rounds as fit what the first method takes (or --budget); a short run of each counts its
    messages. num-server-rounds is that of the first method; the learning rate falls over a run's
    own rounds. Nothing is tuned for you: give each method settings that suit it.

    The reference arms train on as many tokens as the first method: the base model on none; local,
    each client of a round alone; centralised, all rows in one place.

    compare.md, .csv, .json, .svg and .png are written: scores, losses on held-out rows, residual,
    MiB, time and memory, with 95 % intervals over seeds, and differences from the first method. A
    command that was stopped or killed goes on where it was; runs that are there are used again.
    """
    # Late: what is below imports for a second, and --help does without.
    from flowertune.compare.session import Session
    from flowertune.compare.spec import Asked, read_grid_file, read_vary

    given = Asked(
        methods=methods or None,
        seeds=None if seeds is None else [_whole(word) for word in listed(seeds)],
        vary=dict(map(read_vary, vary)) if vary else None,
        partitioners=partitioner or None,
        run_config=run_config,
        supernodes=supernodes,
        arms=None if arms is None else [arm for arm in listed(arms) if arm != "none"],
        equal=equal,
        budget=budget,
        hold_out=hold_out,
        score=score,
        score_options=score_options,
    )
    if grid is not None:
        given = given.over(read_grid_file(grid))
    for option, count in (("--parallel", parallel), ("--threads", threads)):
        if count is not None and count < 1:
            raise UserError(f"{option} is {count}; give a whole number of at least 1.")
    folder = out or app / "results" / "compare"
    session = Session(app, given, folder, parallel or _processes(threads), threads, _say)
    lines = session.go()
    from flowertune.compare.table import markdown

    print(markdown(lines, {}))
    print(f"{folder}: compare.md, compare.csv, compare.json, compare.svg, compare.png")
    for problem in session.problems:
        print(f"error: {problem}", file=sys.stderr)
    return int(bool(session.problems))


def _processes(threads: int) -> int:
    from flowertune.base.gpus import may_have_gpu

    if may_have_gpu():
        return 1
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (there or 1) // threads)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _whole(word: str) -> int:
    if not word.isdecimal():
        raise click.BadParameter(f"{word!r} is not a whole number.", param_hint="--seeds")
    return int(word)
