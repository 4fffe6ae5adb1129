"""``flowertune aggregate``: the Aggregation Memory Experiment in one command."""

import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import listed
from flowertune.config.app import read_app
from flowertune.config.paths import is_path
from flowertune.config.settings import ALL_AT_ONCE, LAYERWISE

MODES = (LAYERWISE, ALL_AT_ONCE)
EXAMPLES = """\b
examples:
  flowertune aggregate                                135M values, 2 and 10 clients
  flowertune aggregate --models smollm2-135m-instruct,meta-llama/Llama-3.2-1B
  flowertune aggregate --modes layerwise --models meta-llama/Llama-3.1-70B-Instruct --clients 2
                                                      the shapes of a 70B model
  flowertune aggregate --real --models /models/mine --clients 3
"""


def aggregate(
    superlink: Annotated[
        str | None,
        typer.Argument(
            metavar="[SUPERLINK]",
            show_default="the default connection of Flower's configuration",
        ),
    ] = None,
    app: Annotated[
        Path, typer.Option(metavar="DIR", help="The app's folder.", show_default="this folder")
    ] = Path(),
    models: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="model.name of each; shapes that ship with the library, or folders.",
        ),
    ] = "smollm2-135m-instruct",
    clients: Annotated[str, typer.Option(metavar="N,...", help="Numbers of clients.")] = "2,10",
    modes: Annotated[
        str, typer.Option(metavar="MODE,...", help="Values of aggregation.mode.")
    ] = ",".join(MODES),
    dtype: Annotated[str, typer.Option(metavar="DTYPE", help="model.dtype.")] = "float16",
    bucket_mb: Annotated[float, typer.Option(metavar="MIB", help="aggregation.bucket-mb.")] = 256,
    real: Annotated[bool, typer.Option("--real", help="Read the models' own weights.")] = False,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write to.")] = Path(
        "results/aggregation-memory"
    ),
    run_config: Annotated[
        str,
        typer.Option(metavar="CONFIG", help="More settings, as in flwr run.", show_default=False),
    ] = "",
) -> int:
    """Average the same whole models layer-wise and all at once, and compare the memory.

    Every pair of model, clients and mode is a run of its own with `flwr run`, on the connection
    SUPERLINK, or on the one that `flowertune connect` set up. A table and a plot of the memory each
    took are written (memory.md, memory.png, memory.jsonl).

    The models' weights are synthetic unless --real is given: only shapes matter here. Nothing is
    stored of the means but their checksums. The exit status is 1 where no run completed.
    """
    read_app(app)
    counts = [_count(word) for word in listed(clients)]
    wanted = listed(modes)
    if wrong := [mode for mode in wanted if mode not in MODES]:
        raise click.BadParameter(f"{wrong[0]!r} is not {' or '.join(MODES)}.", param_hint="--modes")
    # Late: matplotlib is for those who make a plot.
    from flowertune.deploy.memory_experiment import WHAT, run_cell, table, write

    more = [
        f"model.weights='{'checkpoint' if real else 'synthetic'}'",
        f"model.dtype='{dtype}'",
        "aggregation.sink='digest'",
        run_config,
    ]
    results, cells = (out / "runs").absolute(), []
    for model in map(_absolute, listed(models)):
        for count in counts:
            for mode in wanted:
                print(f"{model}, {count} clients, {mode} …", file=sys.stderr, flush=True)
                cells.append(run_cell(app, superlink, model, count, mode, bucket_mb, results, more))
                write(cells, out)
    if not cells:
        raise UserError("--models, --clients and --modes name nothing to run; give one of each.")
    print(table(cells))
    print(WHAT)
    print(f"\n{out}: memory.md, memory.png, memory.jsonl")
    return int(all(cell.reason for cell in cells))


def _absolute(model: str) -> str:
    """On a command line a path starts where the user is; in the settings, at the app's folder."""
    return str(Path(model).expanduser().resolve()) if is_path(model) else model


def _count(word: str) -> int:
    if not word.isdecimal() or int(word) < 1:
        raise click.BadParameter(
            f"{word!r} is not a whole number of at least 1.", param_hint="--clients"
        )
    return int(word)
