"""The Aggregation Memory Experiment in one command: ``python -m flowertune.aggregate``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.config.app import read_app
from flowertune.config.settings import ALL_AT_ONCE, LAYERWISE
from flowertune.deploy.memory_experiment import WHAT, Cell, run_cell, table, write

MODES = (LAYERWISE, ALL_AT_ONCE)
DESCRIPTION = """\
Average the same whole models layer-wise and all at once, with `flwr run` on the connection that
`python -m flowertune.connect` set up, and write a table and a plot of the memory each took
(memory.md, memory.png, memory.jsonl). Every cell is a run, and so a process, of its own.

The models' weights are synthetic unless --real is given: only shapes matter here. Nothing is
stored of the means but their checksums."""
EPILOG = """\
examples:
  python -m flowertune.aggregate                                 135M values, 2 and 10 clients
  python -m flowertune.aggregate --models smollm2-135m-instruct meta-llama/Llama-3.2-1B
  python -m flowertune.aggregate --modes layerwise --models meta-llama/Llama-3.1-70B-Instruct \\
      --clients 2                                                the 70B shapes, about half an hour
  python -m flowertune.aggregate --real --models /models/mine --clients 3"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return _experiment(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.aggregate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("superlink", nargs="?", help="a connection of Flower's configuration (default: its own)")
    add("--app", type=Path, default=Path(), metavar="DIR", help="the app's folder (default: .)")
    add("--models", nargs="+", default=["smollm2-135m-instruct"], metavar="NAME",
        help="model.name of each; shapes that ship with the app, or folders")  # fmt: skip
    add("--clients", nargs="+", type=int, default=[2, 10], metavar="N", help="(default: 2 10)")
    add(
        "--modes",
        nargs="+",
        choices=(LAYERWISE, ALL_AT_ONCE),
        default=list((LAYERWISE, ALL_AT_ONCE)),
        help="(default: both)",
    )
    add("--dtype", default="float16", help="model.dtype (default: float16)")
    add("--bucket-mb", type=float, default=256, metavar="MIB", help="(default: 256)")
    add("--real", action="store_true", help="read the models' own weights")
    add("--out", type=Path, default=Path("results/aggregation-memory"), metavar="DIR",
        help="where to write to (default: results/aggregation-memory)")  # fmt: skip
    add("--run-config", default="", metavar="CONFIG", help="more settings, as in flwr run")
    return parser


def _experiment(arguments: argparse.Namespace) -> int:
    read_app(arguments.app)
    made = "checkpoint" if arguments.real else "synthetic"
    more = [
        f"model.weights='{made}'", f"model.dtype='{arguments.dtype}'", "aggregation.sink='digest'",
        arguments.run_config,
    ]  # fmt: skip
    cells: list[Cell] = []
    for model in arguments.models:
        for clients in arguments.clients:
            for mode in arguments.modes:
                print(f"{model}, {clients} clients, {mode} …", file=sys.stderr, flush=True)
                cells.append(
                    run_cell(
                        arguments.app, arguments.superlink, model, clients, mode,
                        arguments.bucket_mb, (arguments.out / "runs").absolute(), more,
                    )
                )  # fmt: skip
                write(cells, arguments.out)
    print(table(cells))
    print(WHAT)
    print(f"\n{arguments.out}: memory.md, memory.png, memory.jsonl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
