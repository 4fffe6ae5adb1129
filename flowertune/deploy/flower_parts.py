"""Replace a part of flwr in this process for a while, where the installed flwr has it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(module: Any, name: str, other: Callable[[Any], Any]) -> Iterator[None]:
    """Put ``other(part)`` in the place of a part of a module, or of a class.

    Does nothing where there is none.
    """
    if not hasattr(module, name):
        yield
        return
    part = getattr(module, name)
    setattr(module, name, other(part))
    try:
        yield
    finally:
        setattr(module, name, part)
