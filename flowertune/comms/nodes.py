"""The roll call: which SuperNodes there are, and which partition each one holds."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.base.numbers import whole
from flowertune.rules.lock import digest, static_values


@dataclass
class Roll:
    """Who answered: node id by partition, and what the answers said."""

    nodes: dict[int, int] = field(default_factory=dict)
    partitions: set[int] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether every partition that a SuperNode speaks of has its SuperNode."""
        return bool(self.nodes) and all(n <= len(self.nodes) for n in self.partitions)


def ask(grid: Grid, messages: Sequence[Message], timeout: float) -> list[Message]:
    """Send messages and return the replies, each one from the node that was asked.

    Where a SuperNode is gone the SuperLink answers in its place, under an id of its own.
    """
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    asked = {message.metadata.message_id: message for message in messages}
    for place, reply in enumerate(replies):
        about = asked.get(reply.metadata.reply_to_message_id)
        if about and reply.has_error():
            replies[place] = Message(reply.error, reply_to=about)
    return replies


def answer_roll_call(message: Message, context: Context) -> Message:
    """Return a client's answer: its partition, the number of partitions, its locked values."""
    answer = {
        "partition-id": int(context.node_config["partition-id"]),
        "num-partitions": int(context.node_config["num-partitions"]),
        "static-sha256": digest(static_values(context.run_config)),
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


def add_answers(roll: Roll, replies: Iterable[Message]) -> None:
    """Enter the answers into the roll.

    Raises
    ------
    UserError
        If a SuperNode failed to answer, or two SuperNodes hold the same partition.
    """
    for reply in replies:
        node = reply.metadata.src_node_id
        if reply.has_error():
            raise UserError(f"SuperNode {node} could not answer: {reply.error.reason}")
        answer = reply.content.config_records["answer"]
        partition = whole(answer, "partition-id")
        if roll.nodes.get(partition, node) != node:
            raise UserError(
                f"two SuperNodes hold partition {partition}; give each its own partition-id "
                "(flower-supernode --node-config)."
            )
        roll.nodes[partition] = node
        roll.partitions.add(whole(answer, "num-partitions"))
        roll.digests.add(str(answer["static-sha256"]))


def ask_newcomers(roll: Roll, grid: Grid) -> list[Message]:
    """Return the answers of SuperNodes that were not asked before."""
    new = [node for node in grid.get_node_ids() if node not in roll.asked]
    roll.asked.update(new)
    messages = [Message(RecordDict(), node, "query.roll_call") for node in new]
    return ask(grid, messages, 300) if new else []


def call_roll(grid: Grid, wait: float = 60.0) -> Roll:
    """Ask every SuperNode for its partition, for as long as partitions are missing.

    Parameters
    ----------
    wait : float
        Seconds to wait for SuperNodes that have not joined; then go on with those there are.

    Raises
    ------
    UserError
        If no SuperNode joined, or one cannot answer.
    """
    roll, deadline = Roll(), time.monotonic() + wait
    while not roll.complete and time.monotonic() < deadline:
        if replies := ask_newcomers(roll, grid):
            add_answers(roll, replies)
        else:
            time.sleep(0.2)
    if not roll.nodes:
        raise UserError(f"no SuperNode joined within {wait:.0f} s; start some and run again.")
    return roll


def let_newcomers_take_over(roll: Roll, grid: Grid) -> dict[int, int]:
    """Let SuperNodes that joined since the roll call have the partitions that they hold.

    A SuperNode without a key that is started again comes back under a new id. It takes the
    place of the one that held its partition; the run's partitions stay those it began with.

    Returns
    -------
    dict[int, int]
        The new node for each one that was replaced.
    """
    moved = {}
    for reply in ask_newcomers(roll, grid):
        node = reply.metadata.src_node_id
        if reply.has_error():
            log(WARNING, "SuperNode %d joined, but could not answer: %s", node, reply.error.reason)
            continue
        answer = reply.content.config_records["answer"]
        partition = whole(answer, "partition-id")
        same = whole(answer, "num-partitions") in roll.partitions
        if partition not in roll.nodes or not same or answer["static-sha256"] not in roll.digests:
            log(
                WARNING,
                "SuperNode %d joined with partition %d; this run goes on without it: only one "
                "with a partition and the locked values that the run began with can join",
                node, partition,
            )  # fmt: skip
            continue
        moved[roll.nodes[partition]] = node
        roll.nodes[partition] = node
        log(INFO, "partition %d is held by SuperNode %d from now on", partition, node)
    return moved
