"""A run is resumed only with the partitions, adapter and strategy that it was started with."""

from collections.abc import Mapping
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.run.origin import equal


def check_federation(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other partitions: a round's clients and rows are drawn from them.

    Raises
    ------
    UserError
        With how many there were and are.
    """
    if before != now:
        raise UserError(
            f"the run was started with {len(before['held'])} SuperNodes of "
            f"{max(before['partitions'])} partitions, and {len(now['held'])} of "
            f"{max(now['partitions'])} are here (missing: {_listed(before, now)}; new: "
            f"{_listed(now, before)}); a run can be resumed only with the partitions it was "
            "started with (resume-from)."
        )


def check_adapter(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to resume a run with an adapter of another configuration.

    Raises
    ------
    UserError
        With every value of lora_config that differs.
    """
    if changes := _changes(before, now):
        raise UserError(
            f"a run can be resumed only with the adapter it was started with: {changes} "
            "(lora_config in models.py)."
        )


def restore_strategy(strategy: Any, kept: Mapping[str, Any]) -> None:
    """Give a strategy what that of the earlier run kept between rounds.

    Raises
    ------
    UserError
        If it cannot take it: it is another strategy than the run was started with, or says itself
        what it lacks.
    """
    name, reason = type(strategy).__name__, ""
    if hasattr(strategy, "load_state_dict"):
        try:
            strategy.load_state_dict(dict(kept))
        except UserError:  # it says itself what it lacks
            raise
        except Exception as error:  # a strategy is its author's and may raise anything
            reason = f"its load_state_dict raised {type(error).__name__}: {one_line(error)}"
    elif kept:
        reason = "it has no load_state_dict"
    if reason:
        raise UserError(
            f"the run's strategy kept {', '.join(sorted(kept)) or 'nothing'} between rounds, and "
            f"{name} cannot take that ({reason}); a run can be resumed only with the strategy it "
            "was started with (strategy.py)."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
        for key in sorted(before.keys() | now.keys())
        if not equal(before.get(key), now.get(key))
    )


def _listed(these: Mapping[str, Any], without: Mapping[str, Any]) -> str:
    return ", ".join(map(str, sorted({*these["held"]} - {*without["held"]}))) or "none"
