"""Strategies that let out what privacy allows (docs/strategy-contract.md): three methods of theirs.

A strategy that has ``privacy`` has ``stop_before`` and ``release`` as well; others have none.
"""

from typing import Any


def is_private(strategy: Any) -> bool:
    """Whether a strategy counts what it releases."""
    return hasattr(strategy, "privacy")


def why_stop(strategy: Any, server_round: int) -> str | None:
    """Return why a round is not to be begun; None where it may be."""
    return strategy.stop_before(server_round) if is_private(strategy) else None


def why_keep(strategy: Any, server_round: int) -> str | None:
    """Note that a round's result is about to be saved; return why it must not be, if so."""
    return strategy.release(server_round) if is_private(strategy) else None


def privacy_of(strategy: Any, rounds: int) -> dict[str, Any]:
    """Return what a line or a manifest says of privacy; nothing for most strategies."""
    return {"privacy": dict(strategy.privacy(rounds))} if is_private(strategy) else {}
