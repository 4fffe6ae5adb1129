"""The roll call: which SuperNodes there are, and which partition each one holds."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid

from flowertune.errors import UserError
from flowertune.rules.lock import digest, static_values
from flowertune.run.values import whole


@dataclass
class Roll:
    """Who answered: node id by partition, and what the answers said."""

    nodes: dict[int, int] = field(default_factory=dict)
    partitions: set[int] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether every partition that a SuperNode speaks of has its SuperNode."""
        return bool(self.nodes) and all(n <= len(self.nodes) for n in self.partitions)


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
    roll, asked, deadline = Roll(), set(), time.monotonic() + wait
    while not roll.complete and time.monotonic() < deadline:
        new = [node for node in grid.get_node_ids() if node not in asked]
        asked.update(new)
        if new:
            messages = [Message(RecordDict(), node, "query.roll_call") for node in new]
            add_answers(roll, grid.send_and_receive(messages, timeout=300))
        else:
            time.sleep(0.2)
    if not roll.nodes:
        raise UserError(f"no SuperNode joined within {wait:.0f} s; start some and run again.")
    return roll
