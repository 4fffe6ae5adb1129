"""Run a command: the one place where errors become a sentence and an exit status."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import typer
from typer.core import TyperCommand

from flowertune.base.errors import SettingsError, UserError

# Plain text throughout: examples keep their lines, and a pipe gets what a terminal shows.
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class PlainCommand(TyperCommand):
    """A command whose help is plain text."""

    def get_help(self, ctx: click.Context) -> str:
        """Return the help; typer escapes brackets for rich, also where rich is switched off."""
        return super().get_help(ctx).replace("\\[", "[")


def alone(name: str, function: Callable[..., Any], **about: Any) -> typer.Typer:
    """Return a command line that consists of one command.

    Parameters
    ----------
    about
        Further arguments of ``typer.Typer.command``.
    """
    single = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=CONTEXT,
    )
    single.command(name, cls=PlainCommand, **about)(function)
    return single


def execute(commands: typer.Typer, argv: Sequence[str] | None, name: str) -> int:
    """Run what ``argv`` (the process's own arguments if None) asks for.

    Returns
    -------
    int
        0, or what the command returns; 1 for what the user has to change, with a sentence on the
        standard error output; 2 for a wrong command line; 130 after Ctrl-C.
    """
    command = typer.main.get_command(commands)
    try:
        arguments = None if argv is None else list(argv)
        status = command.main(args=arguments, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except click.UsageError as error:
        # Typer says which commands have a like name, and Click would say it again.
        if "Did you mean" in error.message and hasattr(error, "possibilities"):
            error.possibilities = None  # type: ignore[attr-defined]
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _refused(error.format_message())
    except SettingsError as error:
        return _refused(*error.problems)
    except UserError as error:
        return _refused(str(error))
    except BrokenPipeError:
        # The reader, say `head`, has seen enough; what is left to flush would fail again.
        sys.stdout = None  # type: ignore[assignment]
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        return _refused(f"{error.filename}: {error.strerror or error}")


def _refused(*sentences: str) -> int:
    for sentence in sentences:
        print(f"error: {sentence}", file=sys.stderr)
    return 1
