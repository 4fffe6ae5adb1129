"""One exchange with a round's clients: pack, send, wait, and keep the replies that count."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from logging import WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.hashing import json_sha256
from flowertune.base.numbers import as_float, as_int
from flowertune.comms.agreement import norm_of, too_large, unlike_the_others
from flowertune.comms.codec import decode, pack
from flowertune.comms.decoded import DecodedRecord
from flowertune.comms.failures import InvalidReply
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry, exchange
from flowertune.comms.validation import (
    ARRAYS,
    CONFIG,
    FROZEN,
    METRICS,
    MOST_EXAMPLES,
    Expected,
    check_messages,
    kept_of,
    kinds_of,
    partition_of,
    tokens_of,
    validate_reply,
)
from flowertune.config.checks import is_layerwise
from flowertune.config.settings import Settings
from flowertune.profiling.messages import enter_exchange

Tensors = dict[str, torch.Tensor]


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
        Why replies do not count, by partition, over all attempts; the last reason of each.
    asked, failed : int
        Messages that were sent, and those without a reply that counts, over all attempts.
    learning_rate : float | None
        What the clients were told.
    seconds : float
        How long the exchange took.
    ended : float
        When it ended, on the monotonic clock.
    received : int
        Bytes of tensors received, over all attempts.
    records : dict[int, dict[str, Any]]
        What each reply that counts was, by partition: sha256 of its arrays as they travelled,
        bytes, examples, tokens, train-loss, and of what the client keeps, where it keeps anything.
    """

    server_round: int
    replies: list[Message]
    reasons: dict[int, str]
    asked: int
    failed: int = 0
    learning_rate: float | None = None
    seconds: float = 0.0
    ended: float = 0.0
    received: int = 0
    records: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def partitions(self) -> list[int]:
        """The partitions whose replies count."""
        return [partition_of(reply) for reply in self.replies]

    @property
    def tokens(self) -> int:
        """Tokens that were trained on, as the clients say."""
        return sum(tokens_of(reply) for reply in self.replies)


@dataclass(frozen=True)
class _Packed:
    """An adapter as a strategy sent it: float32, and as it travels."""

    tensors: Tensors
    record: ArrayRecord

    @property
    def nbytes(self) -> int:
        return sum(len(array.data) for array in self.record.values())


@dataclass
class Exchanger:
    """Sends what a strategy made, in the run's precision, and validates what comes back.

    Parameters
    ----------
    state_key : str
        Where clients keep what they need again (see ``comms.partition_files``).
    most_norm : float | None
        In place of ``strategy.max-update-norm``; 0: any norm.
    """

    grid: Grid
    cfg: Settings
    registry: NodeRegistry
    ledger: Ledger
    profile: Any
    state_key: str
    most_examples: Callable[[int], int] = lambda partition: MOST_EXAMPLES
    most_norm: float | None = None
    sent: dict[int, Tensors] = field(default_factory=dict, repr=False)
    # Digests of the arrays in the last attempt's replies, by partition and record.
    came: dict[int, dict[str, str]] = field(default_factory=dict, repr=False)
    _packed: dict[str, _Packed] = field(default_factory=dict, repr=False)
    _digests: dict[tuple[tuple[str, int], ...], str] = field(default_factory=dict, repr=False)
    _norms: dict[int, float] = field(default_factory=dict, repr=False)
    _known: int = 0  # entries of the ledger before the attempt

    def once(
        self, server_round: int, messages: Sequence[Message], last_rounds: Mapping[int, int]
    ) -> tuple[list[Message], dict[int, str]]:
        """Send a round's messages once.

        Parameters
        ----------
        last_rounds : Mapping[int, int]
            The last round in which a partition's reply counted: what it kept then is valid.

        Returns
        -------
        tuple
            The replies that count, in the order of partitions, and why the others do not, by
            partition.

        Raises
        ------
        UserError
            If there is no message, one has no adapter, or two are for one node.
        """
        check_messages(messages)
        for known in (self._packed, self._digests, self._norms, self.came):
            known.clear()
        self._known = len(self.ledger.entries)
        partitions = self.registry.by_node()
        outgoing: dict[int, Message] = {}
        packed: dict[int, _Packed] = {}  # by node, what it was sent
        with self.profile.phase("distribute") as distributed:
            for message in messages:
                node = self.registry.current(message.metadata.dst_node_id)
                if node not in partitions:
                    log(WARNING, "round %d: SuperNode %d holds no partition of this run, so it is "
                        "not asked", server_round, node)  # fmt: skip
                    continue
                packed[node] = self._pack(message.content.array_records[ARRAYS])
                config = {
                    **message.content.config_records.get(CONFIG, {}),
                    "server-round": server_round,
                    "last-round": last_rounds.get(partitions[node], 0),
                    "state-key": self.state_key,
                }
                records = {**message.content, ARRAYS: packed[node].record}
                if frozen := message.content.array_records.get(FROZEN):
                    records[FROZEN] = self._pack(frozen).record
                content = RecordDict({**records, CONFIG: ConfigRecord(config)})
                outgoing[node] = Message(content, node, message.metadata.message_type)
            distributed.nbytes = sum(one.nbytes for one in self._packed.values())
        self.sent = {partitions[node]: packed[node].tensors for node in outgoing}
        replies = self._send(server_round, list(outgoing.values()), partitions)

        timeout = self.cfg.strategy.timeout
        reasons = {partitions[node]: f"no answer within {timeout} s" for node in outgoing}
        valid: dict[int, Message] = {}
        norms: dict[int, float] = {}  # of updates; layerwise, a reply holds none
        hashed: dict[int, Future[dict[str, str]]] = {}
        with ThreadPoolExecutor() as pool:  # digests are computed without holding Python's lock
            for reply in replies:
                node = reply.metadata.src_node_id
                partition = partitions[node]
                try:
                    expected, most = self._expected(packed[node]), self.most_examples(partition)
                    tensors = validate_reply(reply, expected, partition, most)
                except InvalidReply as error:
                    reasons[partition] = str(error)
                    continue
                valid[partition] = reply
                came = dict(reply.content.array_records)
                hashed[partition] = pool.submit(digests_of, came)
                if is_layerwise(self.cfg):
                    continue
                base, packed_as = self.sent[partition], None
                if self.cfg.train.transport == "int8":
                    # Replies are updates; the server keeps the unrounded adapter.
                    norms[partition] = norm_of(tensors)
                    tensors = {name: update.add_(base[name]) for name, update in tensors.items()}
                else:
                    norms[partition] = norm_of(tensors, base)
                if self.cfg.train.transport == "float32":
                    packed_as = came[ARRAYS]
                reply.content[ARRAYS] = DecodedRecord(tensors, packed_as)
        self.came = {partition: future.result() for partition, future in hashed.items()}
        refused = self._refused(valid, norms)
        reasons = {p: why for p, why in reasons.items() if p not in valid} | refused
        # The order of arrival must not decide how sums are rounded.
        counted = [valid[partition] for partition in sorted(valid.keys() - refused.keys())]
        return counted, dict(sorted(reasons.items()))

    def records(self, replies: Sequence[Message]) -> dict[int, dict[str, Any]]:
        """Return what each of the last attempt's replies was, by partition (see RoundResult)."""
        received: dict[int | None, int] = {}
        for entry in self.ledger.entries[self._known :]:
            if entry["direction"] == "received":
                partition = entry["partition"]
                received[partition] = received.get(partition, 0) + entry["bytes"]
        found = {}
        for reply in replies:
            partition, metrics = partition_of(reply), reply.content.metric_records[METRICS]
            found[partition] = {
                "sha256": combined(self.came[partition]),
                "bytes": received.get(partition, 0),
                "examples": as_int(metrics, "num-examples"),
                "tokens": tokens_of(reply),
                "train-loss": as_float(metrics, "train-loss"),
            }
            if kept := kept_of(reply):
                found[partition]["kept"] = kept
        return found

    def _refused(self, valid: Mapping[int, Message], norms: Mapping[int, float]) -> dict[int, str]:
        """Return why replies do not count beside the others, by partition."""
        shapes = len({id(self.sent[partition]) for partition in valid}) == 1
        refused = dict.fromkeys(
            unlike_the_others({p: kinds_of(reply, shapes) for p, reply in valid.items()}),
            "its metrics and arrays have other names or kinds than those of most clients; all "
            "clients of a round reply with the same (client_app.py)",
        )
        others = {partition: norm for partition, norm in norms.items() if partition not in refused}
        most = self.cfg.strategy.max_update_norm if self.most_norm is None else self.most_norm
        return refused | too_large(others, self._norm_sent, most)

    def _norm_sent(self, partition: int) -> float:
        """Return the norm of what a partition was sent, computed once for each adapter."""
        sent = self.sent[partition]
        if id(sent) not in self._norms:
            self._norms[id(sent)] = norm_of(sent)
        return self._norms[id(sent)]

    def _send(
        self, server_round: int, outgoing: list[Message], partitions: dict[int, int]
    ) -> list[Message]:
        before = self.ledger.sent, self.ledger.received
        account = self.ledger.account(server_round, partitions)
        with self.profile.phase("wait") as waited:
            replies = exchange(self.grid, outgoing, self.cfg.strategy.timeout, account)
        sent, received = self.ledger.sent - before[0], self.ledger.received - before[1]
        enter_exchange(self.profile, replies, partitions, waited, sent, received)
        return replies

    def _pack(self, record: ArrayRecord) -> _Packed:
        """Return an adapter as it travels; packed once for all messages of equal content."""
        # Most messages of a round hold one record, which need not be read for each of them.
        same = tuple((name, id(array.data)) for name, array in record.items())
        key = self._digests[same] = self._digests.get(same) or _digest(record)
        if key not in self._packed:
            tensors = decode(record)
            self._packed[key] = _Packed(tensors, pack(tensors, self.cfg.train.transport))
        return self._packed[key]

    def _expected(self, packed: _Packed) -> Expected:
        if is_layerwise(self.cfg):
            # A reply says what was trained, and buckets of it are asked for afterwards.
            return Expected({}, {})
        return Expected.like(packed.record, packed.tensors)


def digests_of(records: Mapping[str, ArrayRecord]) -> dict[str, str]:
    """Return the sha256 of each record of arrays, as it travels, in hex."""
    return {name: _digest(record, ordered=True) for name, record in records.items()}


def reply_digest(message: Message) -> str:
    """Return the sha256 of all arrays of a reply, as they travel, in hex."""
    return combined(digests_of(message.content.array_records))


def combined(digests: Mapping[str, str]) -> str:
    """Return the one digest of a reply, given those of its records of arrays."""
    return digests[ARRAYS] if len(digests) == 1 else json_sha256(digests)


def _digest(record: ArrayRecord, ordered: bool = False) -> str:
    seen = hashlib.sha256()
    for name, array in sorted(record.items()) if ordered else record.items():
        seen.update(repr((name, array.dtype, tuple(array.shape), len(array.data))).encode())
        seen.update(array.data)
    return seen.hexdigest()
