"""Replies that a run lost: they are in no mean, and whoever reads its results should know."""

from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

from flwr.common import log

NAMED = 20


def lost_replies(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how many replies were asked for and lost, and why the first ones were, as JSON.

    Parameters
    ----------
    rounds : Sequence[Mapping[str, Any]]
        The lines of rounds.jsonl.
    """
    named = [
        {"round": line["round"], "partition": int(partition), "reason": reason}
        for line in rounds
        for partition, reason in line["lost"].items()
    ]
    return {
        "asked": sum(line["asked"] for line in rounds),
        "lost": sum(line["failed"] for line in rounds),
        "first": named[:NAMED],
    }


def log_lost_replies(rounds: Sequence[Mapping[str, Any]]) -> None:
    """Say at the end of a run which replies it lost, if it lost any."""
    replies = lost_replies(rounds)
    if not replies["lost"]:
        return
    why = "; the first: round {round}, partition {partition}: {reason}"
    log(
        WARNING, "%s of %s replies were lost%s", f"{replies['lost']:,}", f"{replies['asked']:,}",
        why.format(**replies["first"][0]) if replies["first"] else "",
    )  # fmt: skip
