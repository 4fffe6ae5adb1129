"""Single messages over Flower's grid: send one, receive its reply when it is there, cancel it."""

import time
from collections.abc import Iterable, Mapping
from logging import WARNING
from typing import Any

from flwr.app import Message
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.waiting import pause
from flowertune.comms.ledger import Ledger, tensor_bytes
from flowertune.profiling.messages import take_profiles

_SHORTEST, _SLOWER, _LONGEST = 0.005, 1.25, 0.1  # seconds between two looks for a reply


def look_often(grid: Grid) -> None:
    """Let the grid of the Deployment Engine look for replies as often as there is a need.

    Flower's own looks every 3 s. One method of this one grid is replaced.
    """
    if type(grid).__name__ != "HttpGrid":
        return

    def send_and_receive(
        messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        left, replies, began = set(grid.push_messages(messages)), [], time.monotonic()
        while left:
            replies += (found := list(grid.pull_messages(left)))
            left -= {reply.metadata.reply_to_message_id for reply in found}
            waited = time.monotonic() - began
            if not left or (timeout is not None and waited > timeout):
                break
            time.sleep(pause(waited))
        return replies

    setattr(grid, "send_and_receive", send_and_receive)  # noqa: B010


class Channel:
    """Send messages and receive replies, each counted in the ledger.

    Parameters
    ----------
    profile : Any
        Gets "wait" (until a reply is there) and "transfer" (while it is pulled).
    """

    def __init__(self, grid: Grid, ledger: Ledger, server_round: int, profile: Any) -> None:
        self.grid, self.ledger, self.round, self.profile = grid, ledger, server_round, profile
        self._sent_at: dict[str, float] = {}  # when, in seconds since the epoch
        self._partitions: dict[int, int] = {}  # of each node that was sent something

    def send(self, message: Message, partition: int) -> str:
        """Send a message and return its id, which may be empty if Flower did not take it."""
        self.ledger.count_sent(self.round, [message], {message.metadata.dst_node_id: partition})
        self._partitions[message.metadata.dst_node_id] = partition
        (message_id,) = list(self.grid.push_messages([message])) or [""]
        if message_id:
            self._sent_at[message_id] = time.time()
        else:
            log(WARNING, "Flower did not take a message for partition %d", partition)
        return message_id or ""

    def receive(self, message_id: str, partition: int, timeout: float) -> Message | None:
        """Return the reply to a message, waiting for it; None if there is none in time."""
        began = time.perf_counter()
        wait = _SHORTEST
        while message_id:
            looked = time.perf_counter()
            replies = list(self.grid.pull_messages([message_id]))
            if replies:
                now = time.perf_counter()
                self.profile.add("wait", looked - began, ended=looked)
                self.profile.add("transfer", now - looked, tensor_bytes(replies[0]))
                nodes: Mapping[int, int] = {replies[0].metadata.src_node_id: partition}
                self.ledger.count_received(self.round, replies, nodes)
                take_profiles(
                    self.profile, replies, nodes, self._sent_at.pop(message_id, 0.0), time.time()
                )
                return replies[0]
            if looked - began > timeout:
                break
            time.sleep(wait)
            # A look is late by a fourth of the time waited, at most.
            wait = min(_SLOWER * wait, _LONGEST)
        return None

    def cancel(self, message_ids: Iterable[str], timeout: float) -> None:
        """Take replies that are no longer wanted off the grid, as far as they arrive in time."""
        deadline = time.monotonic() + timeout
        left = {message_id for message_id in message_ids if message_id}
        while left and time.monotonic() < deadline:
            for message_id in sorted(left):
                if replies := list(self.grid.pull_messages([message_id])):
                    self.ledger.count_received(self.round, replies, self._partitions)
                    left.discard(message_id)
            time.sleep(_LONGEST)
