"""``flwr profile``, ``flwr-profile`` and ``flowertune profile``: one function."""

import contextlib
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer

from flowertune.base.files import write_atomically
from flowertune.cli.execute import alone, execute
from flowertune.profiler import table
from flowertune.profiler.reading import Attempt, Reader
from flowertune.profiler.summary import Summary, summarize
from flowertune.profiler.trace import trace
from flowertune.profiling.format import FILE, MARK
from flowertune.profiling.records import COLUMNS

# Other commands of flwr took an app's folder and a federation after the run id.
CONTEXT = {"allow_extra_args": True}
EXAMPLES = """\b
examples:
  flwr profile RUN_ID                      a run by its id (flwr list)
  flwr profile RUN_ID --live               while it runs
  flwr profile results/RUN_ID              from the run's folder, without a SuperLink
  flwr profile RUN_ID --format json        everything, for programs
  flwr profile RUN_ID --trace run.json     a trace for https://ui.perfetto.dev

flwr profile, flwr-profile and flowertune profile are the same command.
"""
AGAIN = 1.0  # seconds between two looks at a file that grows


def profile(
    ctx: typer.Context,
    run: Annotated[str, typer.Argument(metavar="RUN_ID")],
    superlink: Annotated[
        str | None, typer.Argument(show_default="the default connection of Flower's configuration")
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Follow the run until it ends.")] = False,
    output_format: Annotated[
        Literal["default", "json"],
        typer.Option("--format", case_sensitive=False, help="A table, or JSON for tools."),
    ] = "default",
    trace_file: Annotated[
        Path | None,
        typer.Option("--trace", help="Also write a trace, for https://ui.perfetto.dev."),
    ] = None,
    federation_config: Annotated[
        list[str] | None, typer.Option("--federation-config", hidden=True)
    ] = None,
) -> None:
    """Show where the time, bytes and memory of a FlowerTune run went.

    Start the run with --run-config "profile.enabled=true". RUN_ID is its id or its folder. It may
    be running or finished, here or on another machine: its profile is read from its log, on the
    SuperLink of a connection.
    """
    if len(ctx.args) > 1:
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(ctx.args[1:])})")
    as_json = output_format == "json"
    try:
        attempts, flower = _read(run, superlink, ctx.args, live, quiet=as_json)
        if trace_file is not None:
            _write_trace(trace_file, attempts)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except click.ClickException as error:
        if not as_json:
            raise
        print(json.dumps({"success": False, "error-message": error.format_message()}))
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps({"success": True, **_as_json(attempts, flower)}, indent=2))
    elif not live or not sys.stdout.isatty():
        _show(summarize(attempts), flower)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``flwr-profile``; returns its exit status."""
    name = "flwr-profile"
    command = alone(name, profile, epilog=EXAMPLES, context_settings=CONTEXT)
    return execute(command, argv, name)


def _read(
    run: str, superlink: str | None, extra: list[str], live: bool, quiet: bool
) -> tuple[list[Attempt], dict[str, str]]:
    attempts, flower = _looked_up(run, superlink, extra, live, quiet)
    if not attempts:
        raise click.ClickException(
            f'Run {run} has left no profile; start a run with --run-config "profile.enabled=true".'
        )
    return attempts, flower


def _looked_up(
    run: str, superlink: str | None, extra: list[str], live: bool, quiet: bool
) -> tuple[list[Attempt], dict[str, str]]:
    folder = Path(run)
    if folder.is_dir():
        reader = Reader(mark="")
        _follow(reader, _file(folder / FILE, reader, live), {}, live, quiet)
        return reader.attempts, {}
    if not run.isascii() or not run.isdecimal():
        raise click.UsageError(f"{run!r} is neither a run's id (flwr list) nor a folder.")
    try:
        # Late: it needs parts of flwr that other versions may lack; a run's folder does without.
        from flowertune.profiler.superlink import source
    except ImportError as error:
        raise click.ClickException(
            f"This flwr cannot be asked for a run's log ({error}); give the run's folder "
            "(results/<run id>) instead of its id."
        ) from None
    reader = Reader(MARK)
    with contextlib.ExitStack() as stack:
        with _silence() if quiet else contextlib.nullcontext():
            record = stack.enter_context(source(int(run), superlink, extra))
            flower = record.about()
        _follow(reader, record.log(live), flower, live, quiet)
        if live:
            flower = record.about()
    return reader.attempts, flower


def _follow(
    reader: Reader, pieces: Iterator[str], flower: dict[str, str], live: bool, quiet: bool
) -> None:
    if not live or quiet:
        for piece in pieces:
            reader.feed(piece)
    elif sys.stdout.isatty():
        _follow_on_terminal(reader, pieces, flower)
    else:
        _follow_in_pipe(reader, pieces)


def _follow_on_terminal(reader: Reader, pieces: Iterator[str], flower: dict[str, str]) -> None:
    # Late: rich is for those who look at a terminal; --json and --trace do without.
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live("waiting for the first lines", console=console, auto_refresh=False) as shown:
        for piece in pieces:
            if reader.feed(piece):
                summary = summarize(reader.attempts)
                shown.update(table.rich(summary, flower, console.width), refresh=True)
        if reader.attempts:
            summary = summarize(reader.attempts)
            shown.update(table.rich(summary, None, console.width), refresh=True)


def _follow_in_pipe(reader: Reader, pieces: Iterator[str]) -> None:
    said = 0
    for piece in pieces:
        if not reader.feed(piece):
            continue
        spans = [span for attempt in reader.attempts for span in attempt.spans]
        # A round is over when the next one has begun, or the run has ended.
        newest = max((span.round for span in spans), default=0)
        for number in range(said + 1, newest + reader.ended):
            print(table.round_line(number, spans), flush=True)
            said = number
    print(flush=True)


def _file(path: Path, reader: Reader, live: bool) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            while True:
                yield file.read()
                if not live or reader.ended:
                    return
                time.sleep(AGAIN)
    except FileNotFoundError:
        return


def _show(summary: Summary, flower: dict[str, str]) -> None:
    if sys.stdout.isatty():
        # Late, as above.
        from rich.console import Console

        console = Console()
        console.print(table.rich(summary, flower, console.width))
    else:
        print(table.plain(summary, flower), end="")


def _as_json(attempts: list[Attempt], flower: dict[str, str]) -> dict[str, Any]:
    start = attempts[0].start
    spans = [
        {**{name: getattr(span, name) for name in COLUMNS}, "at": round(span.at - start, 6)}
        for attempt in attempts
        for span in attempt.spans
    ]
    return {**summarize(attempts).as_json(), "flower": flower, "start": start, "spans": spans}


def _write_trace(path: Path, attempts: list[Attempt]) -> None:
    try:
        # A mistyped folder is named, not made.
        path.resolve().parent.stat()
        write_atomically(path, json.dumps(trace(attempts)))
    except OSError as error:
        raise click.ClickException(
            f"The trace cannot be written to {path}: {error.strerror or error}; name another "
            "file with --trace."
        ) from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    # flwr says which SuperLink it uses, and what it thinks of its configuration.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
