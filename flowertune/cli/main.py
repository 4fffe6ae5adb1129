"""The command ``flowertune``."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from flowertune.cli import (
    aggregate,
    chat,
    compare,
    connect,
    federation,
    inspect,
    methods,
    new,
    plan,
    profile,
    report,
    runs,
    settings,
    watch,
)
from flowertune.cli.execute import CONTEXT, PlainCommand, execute

NAME = "flowertune"
EPILOG = """\
Commands are typed in an app's folder, or take it with --app. Every one has a --help with examples.

\b
Beside them:
  flwr run . --stream --run-config quickstart.toml            train a small model, in minutes
  flwr run . --stream                                         train it (GPU, hub)
  python -m evaluation.finance results/RUN                    score its last checkpoint (GPU, hub)
  python -m evaluation.submit results/RUN --dry-run           look at the zip to hand in
"""


def commands() -> typer.Typer:
    """Return the whole command line, in the order in which an app is worked on."""
    every = typer.Typer(
        name=NAME,
        epilog=EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )
    every.callback()(_about)
    for function, short, examples, context in (
        (new.new, "Make an app for a challenge.", new.EXAMPLES, {}),
        (connect.connect, "Set up Flower on this machine, for the app.", connect.EXAMPLES, {}),
        (settings.settings, "Look up settings: value, what is allowed.", settings.EXAMPLES, {}),
        (methods.methods, "List the federated methods and their options.", methods.EXAMPLES, {}),
        (plan.plan, "Bytes, rounds and GPU memory that a run will take.", plan.EXAMPLES, {}),
        (inspect.inspect, "Training rows as the model sees them.", inspect.EXAMPLES, {}),
        (compare.compare, "Compare methods, seeds and settings in one table.",
         compare.EXAMPLES, {}),
        (runs.runs, "List the app's runs.", runs.EXAMPLES, {}),
        (watch.watch, "Watch a run while it goes on.", watch.EXAMPLES, {}),
        (report.report, "Write one HTML page about a run.", report.EXAMPLES, {}),
        (profile.profile, "Where time, bytes and memory of a run went.", profile.EXAMPLES, {}),
        (chat.chat, "Ask a trained checkpoint.", chat.examples("flowertune chat"), {}),
        (federation.federation, "SuperLink and SuperNodes on this machine.",
         federation.EXAMPLES, federation.CONTEXT),
        (aggregate.aggregate, "Compare the memory of layerwise and all_at_once.",
         aggregate.EXAMPLES, {}),
    ):  # fmt: skip
        every.command(
            cls=PlainCommand, short_help=short, epilog=examples, context_settings=context
        )(function)
    return every


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``flowertune``; returns its exit status (``execute`` says which)."""
    return execute(commands(), argv, NAME)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"{NAME} {version(NAME)}")
        raise typer.Exit()


def _about(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", callback=_say_version,
                     is_eager=True),
    ] = False,
) -> None:  # fmt: skip
    """Fine-tune language models in a federation, as a fair and checkable competition."""
