"""How many bytes the next round is expected to take, so that none passes the budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class RoundCost:
    """The most bytes that an attempt at a round took so far, as if every client had answered.

    Attributes
    ----------
    nbytes : int
        Before the first round: the adapter, to each client of a round and back.
    """

    nbytes: int

    def note(self, entries: Sequence[Mapping[str, Any]], asked: int) -> None:
        """Take one attempt into account.

        Parameters
        ----------
        entries : Sequence[Mapping]
            What the attempt added to the ledger: adapters, other arrays, buckets.
        asked : int
            How many clients were asked.
        """
        sent = sum(entry["bytes"] for entry in entries if entry["direction"] == "sent")
        received = [e for e in entries if e["direction"] == "received" and e["bytes"]]
        answered = len({entry["partition"] for entry in received})
        if answered:
            full = sent + sum(entry["bytes"] for entry in received) * asked // answered
            self.nbytes = max(self.nbytes, full)
