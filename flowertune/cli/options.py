"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import click
import typer

AppFolder = Annotated[
    Path,
    typer.Option("--app", metavar="DIR", help="The app's folder.", show_default="this folder"),
]
RunConfig = Annotated[
    list[str] | None,
    typer.Option(
        "--run-config",
        metavar="CONFIG",
        help="As in flwr run: \"key=value key='text'\", or a .toml file.",
    ),
]
RunName = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", show_default="the run that started last"),
]
# Under click 8.5, typer 0.20 loses the help of arguments: the command's own help tells of them.


def exclusive(given: dict[str, bool]) -> None:
    """Refuse options that do not go together.

    Parameters
    ----------
    given
        Whether each option was given, by its name.

    Raises
    ------
    click.UsageError
        If more than one was.
    """
    named = [name for name, there in given.items() if there]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} cannot be used together.")


def listed(text: str) -> list[str]:
    """Return the parts of a list with commas between; those of nothing but spaces are left out."""
    return [part.strip() for part in text.split(",") if part.strip()]
