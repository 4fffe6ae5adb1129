"""``flowertune settings``: look up settings."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from flowertune.base.errors import UserError
from flowertune.cli.options import AppFolder
from flowertune.config.read import UnreadableApp, default_settings
from flowertune.config.settings import WHERE, Entry, table

EXAMPLES = """\b
examples:
  flowertune settings                    all of them
  flowertune settings learning-rate      those with this in their name
  flowertune settings lora transport     of two kinds
"""


def settings(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", show_default="all settings"),
    ] = None,
    app: AppFolder = Path(),
) -> None:
    """Look up settings by parts of their names: value in this app, what is allowed, what it does.

    Outside an app's folder, the value is the library's default.
    """
    try:
        values = default_settings(app)
    except UnreadableApp:
        values = {entry.key: entry.default for entry in table() if entry.default is not None}
    known = {entry.key: entry for entry in table()}
    keys = list(dict.fromkeys((*known, *values)))
    chosen = [key for key in keys if not words or any(word in key for word in words)]
    if not chosen:
        raise UserError(
            f"No setting has {' or '.join(map(repr, words or []))} in its name; "
            "flowertune settings lists all."
        )
    print("\n\n".join(_text(key, known.get(key), values.get(key)) for key in chosen))
    print(f"\nChange them {WHERE}.")


def _text(key: str, entry: Entry | None, value: Any) -> str:
    shown = "(the challenge's)" if value is None else json.dumps(value, ensure_ascii=False)
    lines = [f"{key} = {shown}"]
    if entry is None:
        return "\n".join([*lines, "    a setting of this app's own"])
    lines += [f"    {line}" for line in (*entry.why.splitlines(), *entry.help.splitlines())]
    locked = "; locked: another value makes a run unofficial" if key.startswith("static.") else ""
    return "\n".join([*lines, f"    allowed: {entry.rule.allowed}{locked}"])
