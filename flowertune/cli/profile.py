"""``flwr profile``, ``flwr-profile`` and ``flowertune profile``: one function."""

import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import typer

from flowertune.base.errors import UserError
from flowertune.base.files import open_regular, write_atomically
from flowertune.cli.execute import alone, execute
from flowertune.profiler import table
from flowertune.profiler.reading import Attempt, Reader, unreadable
from flowertune.profiler.summary import Summary, summarize
from flowertune.profiler.trace import trace
from flowertune.profiling.format import FILE
from flowertune.profiling.records import COLUMNS
from flowertune.run.find import run_anywhere

EXAMPLES = """\b
examples:
  flwr profile RUN_ID                      a run by its id (flwr list, flowertune runs)
  flwr profile RUN_ID --live               while it runs
  flwr profile results/RUN_ID              a run by its folder
  flwr profile RUN_ID --format json        everything, for programs
  flwr profile RUN_ID --trace run.json     a trace for https://ui.perfetto.dev

flwr profile, flwr-profile and flowertune profile are the same command.
"""
AGAIN = 1.0  # seconds between two looks at a file that grows


def profile(
    run: Annotated[str, typer.Argument(metavar="RUN_ID")],
    live: Annotated[bool, typer.Option("--live", help="Follow the run until it ends.")] = False,
    output_format: Annotated[
        Literal["default", "json"],
        typer.Option("--format", case_sensitive=False, help="A table, or JSON for tools."),
    ] = "default",
    trace_file: Annotated[
        Path | None,
        typer.Option("--trace", help="Also write a trace, for https://ui.perfetto.dev."),
    ] = None,
) -> None:
    """Show where the time, bytes and memory of a FlowerTune run went.

    Start the run with --run-config "profile.enabled=true". RUN_ID is its id or its folder; a run
    that was resumed has all its parts, under each of its ids. It may be running or finished. The
    profile is a file in the run's folder, on the machine of the ServerApp: in the folders of the
    apps that were run from this machine an id is enough.
    """
    as_json = output_format == "json"
    try:
        attempts = _read(run, live, quiet=as_json)
        if trace_file is not None:
            _write_trace(trace_file, attempts)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (click.ClickException, UserError) as error:
        text = error.format_message() if isinstance(error, click.ClickException) else str(error)
        if not as_json:
            if isinstance(error, click.ClickException):
                raise
            raise click.ClickException(text) from None
        print(json.dumps({"success": False, "error-message": text}))
        raise typer.Exit(1) from None
    if as_json:
        print(json.dumps({"success": True, **_as_json(attempts)}, indent=2))
    elif not live or not sys.stdout.isatty():
        _show(summarize(attempts))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``flwr-profile``; returns its exit status."""
    name = "flwr-profile"
    return execute(alone(name, profile, epilog=EXAMPLES), argv, name)


def _read(run: str, live: bool, quiet: bool) -> list[Attempt]:
    folder = Path(run)
    if not folder.is_dir():
        if not run.isascii() or not run.isdecimal():
            raise click.UsageError(f"{run!r} is neither a run's id (flwr list) nor a folder.")
        folder = run_anywhere(run, Path(), os.environ)
    reader = Reader()
    _follow(reader, _file(folder / FILE, reader, live), live, quiet)
    if not reader.attempts:
        raise click.ClickException(
            f"Run {run} has left no profile; set profile.enabled = true in pyproject.toml, or in "
            "the file that --run-config names, and start a run."
        )
    return reader.attempts


def _follow(reader: Reader, pieces: Iterator[str], live: bool, quiet: bool) -> None:
    if not live or quiet:
        for piece in pieces:
            reader.feed(piece)
    elif sys.stdout.isatty():
        _follow_on_terminal(reader, pieces)
    else:
        _follow_in_pipe(reader, pieces)


def _follow_on_terminal(reader: Reader, pieces: Iterator[str]) -> None:
    # Late: rich is for those who look at a terminal; --json and --trace do without.
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live("waiting for the first lines", console=console, auto_refresh=False) as shown:
        for piece in pieces:
            if reader.feed(piece):
                summary = summarize(reader.attempts)
                shown.update(table.rich(summary, console.width), refresh=True)


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
        opened = open_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unreadable(path, error) from None
    with io.TextIOWrapper(opened, "utf-8", errors="replace") as file:
        while True:
            yield file.read()
            if not live or reader.ended:
                return
            time.sleep(AGAIN)


def _show(summary: Summary) -> None:
    if sys.stdout.isatty():
        # Late, as above.
        from rich.console import Console

        console = Console()
        console.print(table.rich(summary, console.width))
    else:
        print(table.plain(summary), end="")


def _as_json(attempts: list[Attempt]) -> dict[str, Any]:
    start = attempts[0].start
    spans = [
        {**{name: getattr(span, name) for name in COLUMNS}, "at": round(span.at - start, 6)}
        for attempt in attempts
        for span in attempt.spans
    ]
    return {**summarize(attempts).as_json(), "start": start, "spans": spans}


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
