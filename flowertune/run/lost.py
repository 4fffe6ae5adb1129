"""Replies that a run lost: they are in no mean, and whoever reads its results should know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

from flwr.common import log

NAMED = 20


@dataclass
class LostReplies:
    """How many replies a run asked for and lost, and why the first ones were."""

    asked: int = 0
    lost: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)

    def note(self, line: Mapping[str, Any]) -> None:
        """Take the line of a round (see rounds.jsonl) into account."""
        self.asked += line["asked"]
        self.lost += line["failed"]
        for partition, reason in line["lost"].items():
            if len(self.first) == NAMED:
                break
            self.first.append(
                {"round": line["round"], "partition": int(partition), "reason": reason}
            )

    def record(self) -> dict[str, Any]:
        """Return what manifests and run.json say of it."""
        return {"asked": self.asked, "lost": self.lost, "first": list(self.first)}


def log_lost_replies(lost: LostReplies) -> None:
    """Say at the end of a run which replies it lost, if it lost any."""
    replies = lost.record()
    if not replies["lost"]:
        return
    why = "; the first: round {round}, partition {partition}: {reason}"
    log(
        WARNING, "%s of %s replies were lost%s", f"{replies['lost']:,}", f"{replies['asked']:,}",
        why.format(**replies["first"][0]) if replies["first"] else "",
    )  # fmt: skip
