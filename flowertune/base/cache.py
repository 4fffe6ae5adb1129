"""Cache expensive results across the messages that one worker process serves."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_cache: OrderedDict[Hashable, Any] = OrderedDict()


def cached(
    make: Callable[..., T],
    cfg: Mapping[str, Any],
    depends_on: tuple[str, ...],
    *arguments: Hashable,
    keep: int = 1,
) -> T:
    """Return ``make(cfg, *arguments)``, made once for these settings and arguments.

    Parameters
    ----------
    depends_on : tuple[str, ...]
        Keys of ``cfg``, or beginnings of keys, that the result depends on. A change of any
        other setting does not make it anew.
    keep : int
        How many results of ``make`` to keep; the longest unused one goes first, before a new
        one is made, so that two base models are never held at once.
    """
    settings = tuple(sorted((k, v) for k, v in cfg.items() if k.startswith(depends_on)))
    # With its code: two lambdas of one function have the same name.
    name = (make.__module__, make.__qualname__, getattr(make, "__code__", None))
    key = (name, settings, arguments)
    if key not in _cache:
        of_this = [k for k in _cache if k[0] == name]  # type: ignore[index]
        for old in of_this[: max(0, len(of_this) - keep + 1)]:
            del _cache[old]
        _cache[key] = make(cfg, *arguments)
    _cache.move_to_end(key)
    return _cache[key]


def clear_cache() -> None:
    """Drop everything kept."""
    _cache.clear()
