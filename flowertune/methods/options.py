"""``strategy.options``: the options of a method."""

from collections.abc import Sequence
from typing import Any

from flowertune.config import options
from flowertune.config.options import Option, number, share, text_of

__all__ = ["NAME", "OPTIONS", "Option", "number", "read_options", "share", "text_of"]

NAME, OPTIONS = "strategy.name", "strategy.options"


def read_options(
    text: str, table: Sequence[Option], method: str
) -> tuple[dict[str, Any], list[str]]:
    """Return the value of each option of a method, and a sentence for each thing that is wrong."""
    return options.read(text, table, OPTIONS, method)
