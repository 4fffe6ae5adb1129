"""What a person reads while a run goes on: one line a round, and one a minute in long rounds."""

import time
from logging import INFO

from flwr.common import log

from flowertune.base.text import counted, duration
from flowertune.comms.ledger import Ledger
from flowertune.run.live import Live

LOG_EVERY = 60.0  # seconds between two lines about a round that goes on


class BucketProgress:
    """Logs from time to time how far a round of buckets is; call it after each finished bucket."""

    def __init__(
        self, server_round: int, buckets: int, ledger: Ledger, live: Live | None = None
    ) -> None:
        self.server_round, self.buckets, self.ledger = server_round, buckets, ledger
        self._live = live
        self._first: int | None = None  # buckets that were done when this began
        self._began = self._logged = time.monotonic()
        self._received = ledger.received

    def __call__(self, done: int) -> None:
        """Note that ``done`` buckets are finished."""
        if self._live:
            self._live.count(self.server_round, done, self.buckets, "buckets")
        now = time.monotonic()
        if self._first is None:
            self._first = done - 1
        elif done <= self._first:  # the round starts anew
            self._first = done
            self._began = self._logged = now
            self._received = self.ledger.received
            return
        if now - self._logged < LOG_EVERY or done == self.buckets:
            return
        self._logged = now
        received, seconds = self.ledger.received - self._received, now - self._began
        left = (self.buckets - done) * seconds / (done - self._first)
        log(
            INFO, "round %d: bucket %s of %s, %.1f GB received, %.2f GB/s, about %s left",
            self.server_round, f"{done:,}", f"{self.buckets:,}", received / 1e9,
            received / seconds / 1e9, duration(left),
        )  # fmt: skip


def round_line(
    server_round: int,
    rounds: int,
    clients: int,
    failed: int,
    loss: float,
    mib: float,
    budget_mib: int,
    seconds_per_round: float,
) -> str:
    """Return the line of one finished round."""
    left = (rounds - server_round) * seconds_per_round
    end = f"about {duration(left)} left" if server_round < rounds else "done"
    return (
        f"round {server_round:>{len(str(rounds))}}/{rounds} | {people(clients, failed)} | "
        f"loss {loss:.4f} | {mib:,.1f} of {budget_mib:,} MiB | {end}"
    )


def people(clients: int, failed: int) -> str:
    """Return who took part: "5 clients", "1 client (4 failed)"."""
    return counted(clients, "client") + (f" ({failed} failed)" if failed else "")
