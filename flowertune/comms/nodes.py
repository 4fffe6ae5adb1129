"""Node discovery: which SuperNodes there are, and which partition each one holds."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.base.numbers import as_int
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.comms.ledger import Account, Ledger, message_bytes
from flowertune.rules.lock import static_digest
from flowertune.rules.provenance import Library, code_digest, installed_library

DISCOVER = "query.discover"
WAIT = 60.0  # seconds for SuperNodes that have not joined
ANSWER_TIMEOUT = 300.0  # seconds in which one that joined answers
LONGEST_ANSWER = 100_000  # bytes
BEFORE = 0  # the round of the ledger for what is sent before the first one


@dataclass(frozen=True)
class Answer:
    """What one SuperNode says of itself."""

    node: int
    partition: int
    partitions: int
    static_sha256: str
    library: Library


def exchange(
    grid: Grid, messages: Sequence[Message], timeout: float, account: Account
) -> list[Message]:
    """Send messages, at most one to a node; return one reply at most from each node asked.

    Where a SuperNode is gone the SuperLink answers in its place, under an id of its own. Everything
    is entered in the ledger, replies that are not returned as well.
    """
    account.count_sent(messages)
    replies = list(grid.send_and_receive(messages, timeout=timeout))
    asked = {message.metadata.message_id: message for message in messages}
    for place, reply in enumerate(replies):
        about = asked.get(reply.metadata.reply_to_message_id)
        if about and reply.has_error():
            replies[place] = Message(reply.error, reply_to=about)
    account.count_received(replies)
    nodes = {message.metadata.dst_node_id for message in messages}
    first: dict[int, Message] = {}
    for reply in replies:
        node = reply.metadata.src_node_id
        if node not in nodes:
            log(WARNING, "a reply of SuperNode %d, which was not asked, does not count", node)
        elif node in first:
            log(WARNING, "SuperNode %d replied twice; the first reply counts", node)
        else:
            first[node] = reply
    return list(first.values())


def answer_discovery(message: Message, context: Context, package: Path | None = None) -> Message:
    """Return a client's answer: its partition, its locked values and its library.

    Raises
    ------
    UserError
        If the client runs other code than the server, and the server asked.
    """
    asked = message.content.config_records.get("question", {})
    if package and asked.get("code-sha256", "") not in ("", code_digest(package)):
        # Ray looks for modules in the folder that the SuperLink was started in before it looks in
        # the app that was sent: another app of the same challenge may lie there.
        raise UserError(
            f"it runs the code in {package}, which is not that of the app that was sent; start the "
            "SuperLink in a folder that holds no app (flowertune connect --restart)."
        )
    answer = {
        "partition-id": int(context.node_config["partition-id"]),
        "num-partitions": int(context.node_config["num-partitions"]),
        "static-sha256": static_digest(context.run_config),
        "library": json.dumps(installed_library().record()),
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


def _read(reply: Message) -> Answer:
    """Return a SuperNode's answer.

    Raises
    ------
    InvalidReply
        If it gave an error, or something that is no answer.
    """

    def answer_in(content: RecordDict) -> Answer:
        if (size := message_bytes(reply)) > LONGEST_ANSWER:
            raise InvalidReply(f"its answer has {size:,} bytes, more than {LONGEST_ANSWER:,}")
        answer = content.config_records["answer"]
        library = Library.of(json.loads(str(answer["library"])))
        partition, partitions = as_int(answer, "partition-id"), as_int(answer, "num-partitions")
        if not 0 <= partition < partitions:
            raise InvalidReply(
                f"it holds partition {partition} of {partitions}, numbered from 0; give it a "
                "partition-id below num-partitions (flower-supernode --node-config)"
            )
        digest = str(answer["static-sha256"])
        return Answer(reply.metadata.src_node_id, partition, partitions, digest, library)

    return read_reply(reply, answer_in)


def partitions_by_node(nodes: Mapping[int, int]) -> dict[int, int]:
    """Return the partition of each node id, from the node id of each partition."""
    return {node: partition for partition, node in nodes.items()}


@dataclass
class NodeRegistry:
    """Which SuperNode holds which partition, and what the SuperNodes said of themselves.

    ``nodes`` is the node id of each partition; it changes where a SuperNode rejoins under a new
    id. The other answers are those the run began with. A SuperNode whose Python files are not
    those of ``code_sha256`` (of any, where it is empty) does not answer. What is asked and answered
    is entered in ``ledger``, as round 0.
    """

    nodes: dict[int, int] = field(default_factory=dict)
    partitions: set[int] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    libraries: set[Library] = field(default_factory=set)
    code_sha256: str = ""
    ledger: Ledger = field(default_factory=lambda: Ledger(0))
    _refused: dict[int, str] = field(default_factory=dict)
    _asked: set[int] = field(default_factory=set)
    _moved: dict[int, int] = field(default_factory=dict)

    def current(self, node: int) -> int:
        """Return the node that holds what ``node`` held: itself, or the one that replaced it."""
        while node in self._moved:
            node = self._moved[node]
        return node

    def by_node(self) -> dict[int, int]:
        """Return the partition of each node id."""
        return partitions_by_node(self.nodes)

    @property
    def complete(self) -> bool:
        """Whether every partition that a SuperNode speaks of has its SuperNode.

        One whose answer cannot be used may hold any partition.
        """
        there = len(self.nodes) + len(self._refused)
        return bool(self.nodes) and all(n <= there for n in self.partitions)

    def discover(self, grid: Grid, wait: float = WAIT) -> "NodeRegistry":
        """Ask every SuperNode for its partition, for as long as partitions are missing.

        One whose answer cannot be used takes no part.

        Parameters
        ----------
        wait : float
            Seconds to wait for SuperNodes that have not joined; then go on with those there are.

        Raises
        ------
        UserError
            If no SuperNode joined, one gives an error, no answer can be used, or two hold the same
            partition.
        """
        # A grid of one process knows that nobody joins later.
        deadline = time.monotonic() + (0 if getattr(grid, "everybody_is_here", False) else wait)
        while not self.complete:
            replies = self._ask_new(grid)
            for reply in replies:
                self._enter(reply)
            if time.monotonic() >= deadline:
                break
            if not replies:
                time.sleep(0.2)
        if not self.nodes and self._refused:
            node, reason = next(iter(self._refused.items()))
            raise UserError(f"SuperNode {node} could not answer: {reason}.")
        if not self.nodes:
            raise UserError(f"no SuperNode joined within {wait:.0f} s; start some and run again.")
        return self

    def handle_rejoins(self, grid: Grid) -> dict[int, int]:
        """Let SuperNodes that joined since discovery have the partitions that they hold.

        A SuperNode without a key that is started again comes back under a new id. It takes the
        place of the one that held its partition; the run's partitions stay those it began with.

        Returns
        -------
        dict[int, int]
            The new node for each one that was replaced.
        """
        moved = {}
        for reply in self._ask_new(grid):
            node = reply.metadata.src_node_id
            try:
                answer = _read(reply)
            except InvalidReply as error:
                log(WARNING, "SuperNode %d joined, but could not answer: %s", node, error)
                continue
            if answer.partition not in self.nodes or not self._fits(answer):
                log(
                    WARNING,
                    "SuperNode %d joined with partition %d; this run goes on without it: only one "
                    "with a partition, the locked values and the library that the run began with "
                    "can join",
                    node, answer.partition,
                )  # fmt: skip
                continue
            moved[self.nodes[answer.partition]] = node
            self._moved[self.nodes[answer.partition]] = node
            self.nodes[answer.partition] = node
            log(INFO, "partition %d is held by SuperNode %d from now on", answer.partition, node)
        return moved

    def _fits(self, answer: Answer) -> bool:
        return (
            answer.partitions in self.partitions
            and answer.static_sha256 in self.digests
            and answer.library in self.libraries
        )

    def _ask_new(self, grid: Grid) -> list[Message]:
        new = [node for node in grid.get_node_ids() if node not in self._asked]
        self._asked.update(new)
        question = RecordDict({"question": ConfigRecord({"code-sha256": self.code_sha256})})
        messages = [Message(question, node, DISCOVER) for node in new]
        if not new:
            return []
        return exchange(grid, messages, ANSWER_TIMEOUT, self.ledger.account(BEFORE, self.by_node()))

    def _enter(self, reply: Message) -> None:
        node = reply.metadata.src_node_id
        try:
            answer = _read(reply)
        except InvalidReply as error:
            if reply.has_error():
                raise UserError(f"SuperNode {node} could not answer: {error}") from None
            log(WARNING, "SuperNode %d takes no part: %s", node, error)
            self._refused[node] = str(error)
            return
        if self.nodes.get(answer.partition, answer.node) != answer.node:
            raise UserError(
                f"two SuperNodes hold partition {answer.partition}; give each its own "
                "partition-id (flower-supernode --node-config)."
            )
        self.nodes[answer.partition] = answer.node
        self.partitions.add(answer.partitions)
        self.digests.add(answer.static_sha256)
        self.libraries.add(answer.library)
