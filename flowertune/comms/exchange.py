"""One exchange with a round's clients: pack, send, wait, and keep the replies that count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.comms.codec import pack, unpack
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry, exchange
from flowertune.comms.validation import (
    ARRAYS,
    Expected,
    InvalidReply,
    partition_of,
    tokens_of,
    validate_reply,
)
from flowertune.config.checks import is_layerwise
from flowertune.config.settings import Settings
from flowertune.profiling.messages import enter_exchange


@dataclass(frozen=True)
class RoundResult:
    """What came of a round.

    Attributes
    ----------
    server_round : int
        Its number.
    replies : list[Message]
        The replies that count, in the order of partitions; adapters are float32.
    reasons : dict[int, str]
        Why the others do not count, by partition, of the last try.
    asked, failed : int
        Clients that were asked, and messages without a reply that counts, over all tries.
    learning_rate : float | None
        What the clients were told.
    seconds : float
        How long the exchange took.
    nbytes : int
        Bytes of tensors sent and received, over all tries.
    """

    server_round: int
    replies: list[Message]
    reasons: dict[int, str]
    asked: int
    failed: int = 0
    learning_rate: float | None = None
    seconds: float = 0.0
    nbytes: int = 0
    received: int = 0

    @property
    def partitions(self) -> list[int]:
        """The partitions whose replies count."""
        return [partition_of(reply) for reply in self.replies]

    @property
    def tokens(self) -> int:
        """Tokens that were trained on, as the clients say."""
        return sum(tokens_of(reply) for reply in self.replies)


@dataclass
class Exchanger:
    """Sends what a strategy made, in the run's precision, and judges what comes back.

    Parameters
    ----------
    run_key : str
        The run, stable over resumed runs: where clients keep what they need again.
    """

    grid: Grid
    cfg: Settings
    registry: NodeRegistry
    ledger: Ledger
    profile: Any
    run_key: str
    _packed: dict[int, tuple[Any, ArrayRecord, dict[str, torch.Tensor]]] = field(
        default_factory=dict, repr=False
    )

    def once(
        self, server_round: int, messages: Sequence[Message], moved: Mapping[int, int]
    ) -> tuple[list[Message], dict[int, str], int]:
        """Send a round's messages once.

        Parameters
        ----------
        moved : Mapping[int, int]
            The new node of each one that was replaced since the messages were made.

        Returns
        -------
        tuple
            The replies that count, why the others do not (by partition), and bytes received.
        """
        self._packed.clear()
        partitions = self.registry.by_node()
        with self.profile.phase("distribute") as distributed:
            outgoing = [self._outgoing(message, moved) for message in messages]
            distributed.nbytes = sum(
                sum(len(array.data) for array in packed.values())
                for _, packed, _ in self._packed.values()
            )
        expected = {
            out.metadata.dst_node_id: self._expected(message, out)
            for message, out in zip(messages, outgoing, strict=True)
        }
        bases = {
            out.metadata.dst_node_id: self._tensors(message)
            for message, out in zip(messages, outgoing, strict=True)
        }
        before = self.ledger.sent, self.ledger.received
        self.ledger.count_sent(server_round, outgoing, partitions)
        timeout = self.cfg.strategy.timeout
        with self.profile.phase("wait") as waited:
            replies = exchange(self.grid, outgoing, timeout)
        self.ledger.count_received(server_round, replies, partitions)
        sent, received = self.ledger.sent - before[0], self.ledger.received - before[1]
        enter_exchange(self.profile, replies, partitions, waited, sent, received)

        reasons = {
            partitions.get(m.metadata.dst_node_id, -1): f"no answer within {timeout} s"
            for m in outgoing
        }
        valid = []
        for reply in replies:
            node = reply.metadata.src_node_id
            if node not in expected:
                log(WARNING, "round %d: a reply of SuperNode %d, which was not asked, does not "
                    "count", server_round, node)  # fmt: skip
                continue
            partition = partitions.get(node, -1)
            try:
                tensors = validate_reply(reply, expected[node], partition)
            except InvalidReply as error:
                reasons[partition] = str(error)
                continue
            reasons.pop(partition, None)
            if self.cfg.train.transport == "int8":
                # int8 replies are updates; the server keeps the unrounded adapter.
                tensors = {name: bases[node][name] + tensors[name] for name in tensors}
            reply.content[ARRAYS] = ArrayRecord(tensors)
            valid.append(reply)
        # The order of arrival must not decide how sums are rounded.
        valid.sort(key=partition_of)
        return valid, dict(sorted(reasons.items())), received

    def _pack(self, message: Message) -> tuple[Any, ArrayRecord, dict[str, torch.Tensor]]:
        """Return a message's adapter as it travels; packed once for all that share it."""
        record = message.content.array_records[ARRAYS]
        if id(record) not in self._packed:
            tensors = unpack(record)
            packed = pack(tensors, self.cfg.train.transport)
            # The record itself is kept, so that nothing else can get its id meanwhile.
            self._packed[id(record)] = (record, packed, tensors)
        return self._packed[id(record)]

    def _tensors(self, message: Message) -> dict[str, torch.Tensor]:
        return self._pack(message)[2]

    def _outgoing(self, message: Message, moved: Mapping[int, int]) -> Message:
        content = RecordDict({**message.content, ARRAYS: self._pack(message)[1]})
        content.config_records["config"]["state-key"] = self.run_key
        node = message.metadata.dst_node_id
        return Message(content, moved.get(node, node), message.metadata.message_type)

    def _expected(self, message: Message, outgoing: Message) -> Expected:
        if is_layerwise(self.cfg):
            # A reply says what was trained, and buckets of it are asked for afterwards.
            return Expected({}, {})
        packed = outgoing.content.array_records[ARRAYS]
        return Expected.like(packed, self._tensors(message))
