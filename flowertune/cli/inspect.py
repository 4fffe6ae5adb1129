"""What the model is trained on: ``python -m flowertune.inspect``."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from flowertune.base.errors import UserError
from flowertune.cli.quiet import quiet_libraries
from flowertune.config.app import read_app
from flowertune.config.read import add_settings_arguments, read_settings

DESCRIPTION = """\
Show training rows as the model sees them, and a report on all the data.

Of each row, what the model only reads (masked), what it learns (supervised) and what is cut off at
train.seq-length are told apart by color; where there is none (a file, a pipe, NO_COLOR) by marks.
The report counts supervised tokens and names the rows that lose their answer, or part of it.
Weights are not needed; the tokenizer and the dataset are."""
EPILOG = """\
examples:
  python -m flowertune.inspect                                    three rows of partition 0
  python -m flowertune.inspect --partition 7 --row 12             a row that the report named
  python -m flowertune.inspect --run-config quickstart.toml       the quickstart's data and prompt
  python -m flowertune.inspect --run-config "train.seq-length=64" what a smaller length would cut
  python -m flowertune.inspect --rows 0 --json                    the report alone, for programs"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        _inspect(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader, say `head`, has seen enough; what is left to flush would fail again
        sys.stdout = None
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flowertune.inspect",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_arguments(parser)
    add = parser.add_argument
    add("--partition", type=int, default=0, metavar="N", help="whose rows to show (default: 0)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--rows", type=int, default=3, metavar="N", help="how many rows to show (default: 3)"
    )
    which.add_argument("--row", type=int, metavar="N", help="show this row only, counted from 0")
    add("--supernodes", type=int, metavar="N", help="partitions (default: as the run would have)")
    add("--json", action="store_true", help="print the report as JSON and no rows")
    return parser


def _inspect(arguments: argparse.Namespace) -> None:
    cfg = read_settings(arguments.app, arguments.run_config)
    partitions = arguments.supernodes or cfg.static.num_supernodes
    partitions = partitions or read_app(arguments.app).supernodes
    if not 0 <= arguments.partition < partitions:
        raise UserError(
            f"--partition is {arguments.partition}; use a number from 0 to {partitions - 1}."
        )
    quiet_libraries()
    from flowertune.cli.app import load_app
    from flowertune.data.examples import load_pairs
    from flowertune.data.report_text import as_text
    from flowertune.planning.data_summary import summarize

    functions = load_app(arguments.app).functions
    tokenizer = functions.load_tokenizer(cfg)
    if arguments.json:
        print(json.dumps(summarize(cfg, functions, tokenizer, partitions), indent=2))
        return
    prompt = functions.prompt_and_answer
    pairs, _ = load_pairs(cfg, prompt, tokenizer, arguments.partition, partitions)
    _show(arguments, pairs, tokenizer, cfg.train.seq_length)
    print(f"All partitions of {cfg.static.dataset.name}:")
    print(as_text(summarize(cfg, functions, tokenizer, partitions)))


def _show(
    arguments: argparse.Namespace, pairs: list[tuple[str, str]], tokenizer: Any, length: int
) -> None:
    from rich.console import Console

    from flowertune.data import row_view as view

    chosen = range(min(max(arguments.rows, 0), len(pairs)))
    if arguments.row is not None:
        if not 0 <= arguments.row < len(pairs):
            raise UserError(
                f"--row is {arguments.row}; partition {arguments.partition} has rows 0 to "
                f"{len(pairs) - 1}."
            )
        chosen = [arguments.row]
    console = Console(soft_wrap=True, highlight=False)
    color = console.is_terminal and not console.no_color
    if chosen:
        console.print(view.legend(color), end="\n\n")
    for number in chosen:
        parts = view.parts_of(tokenizer, *pairs[number], length)
        console.print(
            f"partition {arguments.partition}, row {number}: {view.counts(parts)}", style="bold"
        )
        console.print(view.colored(parts) if color else view.marked(parts), end="\n\n")


if __name__ == "__main__":
    raise SystemExit(main())
