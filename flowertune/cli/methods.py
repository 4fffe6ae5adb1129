"""``flowertune methods``: the methods of the library and their options."""

import inspect
from typing import Annotated

import typer

from flowertune.base.errors import UserError
from flowertune.config.settings import WHERE
from flowertune.methods.registry import NAMES, load, options_in

EXAMPLES = """\b
examples:
  flowertune methods             all of them, a line each
  flowertune methods fedprox     its equations, its options
"""


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", show_default="all methods")
    ] = None,
) -> None:
    """List the federated methods of the library, or show one: paper, equations, options.

    A run takes one by strategy.name, with strategy.options="name=value, name=value".
    """
    if name is None:
        width = max(map(len, NAMES))
        print("\n".join(f"{each:<{width}}  {_title(each)}" for each in NAMES))
        print(f"\nChoose one with strategy.name, its options with strategy.options ({WHERE}).")
        return
    if name not in NAMES:
        raise UserError(f"{name!r} is no method of the library; it has {', '.join(NAMES)}.")
    print(inspect.getdoc(load(name)))
    print("\nstrategy.options:" if (table := options_in(load(name))) else "\nIt has no options.")
    for option in table:
        print(f"  {option.name}={option.default}  {option.help}; {option.rule.allowed}")


def _title(name: str) -> str:
    """Return what a method's docstring begins with, up to its paper."""
    text = " ".join((inspect.getdoc(load(name)) or "").split())
    return text.partition(" (")[0].rstrip(".")
