"""A SuperNode asks for messages as often as there is a need.

Flower's sleeps 3 s after it found no message, and 0.5 s between two looks for its client's reply;
nothing sets that. Here it asks more often while a run goes on, and after that as seldom as ever.
"""

import time
from typing import Any

from flowertune.base.waiting import pause

MODULE = "flwr.supernode.start_client_internal"
IDLE = 3.0  # seconds that Flower sleeps where there was no message


class Polls:
    """The module ``time`` for a SuperNode, with shorter sleeps while it has work."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self._worked: float | None = None  # when a client was last at work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def sleep(self, seconds: float) -> None:
        """Sleep as long as Flower would, or less."""
        now = self._own.monotonic()
        if seconds < IDLE:
            self._worked = now
            seconds = min(seconds, 0.05)
        elif self._worked is not None:
            seconds = min(seconds, pause(now - self._worked))
        self._own.sleep(seconds)


def poll_often(supernode: Any) -> None:
    """Let a SuperNode (the module of its main loop) sleep as ``Polls`` does."""
    if supernode.time is time:
        supernode.time = Polls(time)
