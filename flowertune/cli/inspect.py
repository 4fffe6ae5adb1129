"""``flowertune inspect``: what the model is trained on."""

import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import AppFolder, RunConfig, exclusive
from flowertune.config.app import read_app
from flowertune.config.read import read_settings
from flowertune.config.settings import IID, Settings

ROWS = 3
FORMS = (".png", ".svg", ".pdf")
EXAMPLES = """\b
examples:
  flowertune inspect                                       three rows of partition 0 (hub)
  flowertune inspect --partition 7 --row 12                a row that the report named (hub)
  flowertune inspect --run-config quickstart.toml          the quickstart's data and prompt
  flowertune inspect --run-config "train.seq-length=64"    what a smaller length would cut (hub)
  flowertune inspect --plot split.png                      a picture of who holds what (hub)
  flowertune inspect --json                                the report alone, for programs (hub)
"""


def inspect(
    app: AppFolder = Path(),
    run_config: RunConfig = None,
    partition: Annotated[int, typer.Option(metavar="N", help="Whose rows to show.")] = 0,
    rows: Annotated[int, typer.Option(metavar="N", help="How many rows to show.")] = ROWS,
    row: Annotated[
        int | None, typer.Option(metavar="N", help="Show this row only, counted from 0.")
    ] = None,
    supernodes: Annotated[
        int | None,
        typer.Option(metavar="N", help="Partitions.", show_default="as the run would have"),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw each partition's labels (.png, .svg or .pdf)."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON and no rows.")
    ] = False,
) -> None:
    """Show training rows as the model sees them, and a report on all the data.

    Of each row, what the model only reads (masked), what it learns (supervised) and what is cut off
    at train.seq-length are told apart by color; where there is none (a file, a pipe, NO_COLOR) by
    marks. The report counts supervised tokens and names the rows that lose their answer, or part of
    it. Where rows are not dealt out evenly, each partition's labels are counted. Weights are not
    needed; the tokenizer and the dataset are.
    """
    exclusive({"--rows": rows != ROWS, "--row": row is not None})
    cfg = read_settings(app, run_config)
    partitions = supernodes or cfg.static.num_supernodes or read_app(app).supernodes
    if not 0 <= partition < partitions:
        raise UserError(f"--partition is {partition}; use a number from 0 to {partitions - 1}.")
    if plot and plot.suffix.lower() not in FORMS:
        raise UserError(f"--plot is {plot}; give a file that ends in {', '.join(FORMS)}.")
    # Late: datasets and transformers take seconds; --help and wrong settings need neither.
    from flowertune.base.progress_bars import disable_progress_bars

    disable_progress_bars()
    from flowertune.client.load import load_app
    from flowertune.data.examples import load_pairs
    from flowertune.data.report_text import as_text
    from flowertune.planning.data_summary import summarize

    functions = load_app(app).functions
    tokenizer = functions.load_tokenizer(cfg)
    split = _drawn(cfg, partitions, plot) if plot or cfg.static.partitioner.name != IID else None
    if as_json:
        print(json.dumps(summarize(cfg, functions, tokenizer, partitions), indent=2))
        return
    pairs, _, _ = load_pairs(cfg, functions.prompt_and_answer, tokenizer, partition, partitions)
    chosen: Iterable[int] = range(min(max(rows, 0), len(pairs)))
    if row is not None:
        if not 0 <= row < len(pairs):
            raise UserError(
                f"--row is {row}; partition {partition} has rows 0 to {len(pairs) - 1}."
            )
        chosen = [row]
    _show(partition, {number: pairs[number] for number in chosen}, tokenizer, cfg.train.seq_length)
    print(f"All partitions of {cfg.static.dataset.name}:")
    print(as_text(summarize(cfg, functions, tokenizer, partitions)))
    if split is not None:
        print(f"dealt out by {split.said}")
        print(split.table() if split.column else f"labels are not counted: {split.why}")


def _drawn(cfg: Settings, partitions: int, plot: Path | None) -> Any:
    """Return the split of a run; draw it to a file, if one is given."""
    # Late: it imports matplotlib.
    from flowertune.base.files import write_atomically
    from flowertune.report.split import split_of

    split = split_of(cfg, partitions)
    if plot is None:
        return split
    if split.column is None:
        raise UserError(f"--plot is {plot}, but {split.why}; leave it out.")
    drawn = BytesIO()
    split.figure().savefig(drawn, format=plot.suffix[1:].lower(), dpi=150, facecolor="white")
    try:
        write_atomically(plot, drawn.getvalue())
    except OSError as error:
        raise UserError(
            f"{plot} cannot be written: {error.strerror or error}; choose another place with "
            "--plot."
        ) from None
    return split


def _show(partition: int, pairs: dict[int, Any], tokenizer: Any, length: int) -> None:
    from rich.console import Console  # late, as above

    from flowertune.data import row_view as view
    from flowertune.data.examples import BadRow

    console = Console(soft_wrap=True, highlight=False)
    color = console.is_terminal and not console.no_color
    if pairs:
        console.print(view.legend(color), end="\n\n")
    for number, pair in pairs.items():
        if isinstance(pair, BadRow):
            text = f"partition {partition}, row {number}: left out, {pair.reason}"
            console.print(text, style="bold", end="\n\n")
            continue
        prompt, answer = pair
        parts = view.parts_of(tokenizer, prompt, answer, length)
        console.print(f"partition {partition}, row {number}: {view.counts(parts)}", style="bold")
        console.print(view.colored(parts) if color else view.marked(parts), end="\n\n")
