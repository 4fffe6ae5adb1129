"""The ledger: bytes of all records sent and received, compared with the budget."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, Message

from flowertune.base.text import MIB


def tensor_bytes(message: Message) -> int:
    """Return the bytes of all tensors in a message, as they travel; 0 for an error."""
    if message.has_error():
        return 0
    records = message.content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())


def message_bytes(message: Message) -> int:
    """Return the bytes of all records in a message, names and values; 0 for an error.

    A number counts 8 bytes and a boolean 1, as in Flower's own ``count_bytes``.
    """
    if message.has_error():
        return 0
    return sum(record_bytes(name, record) for name, record in message.content.items())


def record_bytes(name: str, record: Mapping[str, Any]) -> int:
    """Return the bytes of one record in a message: its name, its keys and values."""
    return _bytes(name) + sum(_bytes(key) + _bytes(value) for key, value in record.items())


def _bytes(value: Any) -> int:
    if isinstance(value, Array):
        return len(value.data)
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return 1 if isinstance(value, bool) else 8


@dataclass
class Ledger:
    """What a run has communicated, message by message (the server's view).

    Attributes
    ----------
    carried
        What every message takes along beside its own records, in bytes.
    sent, received
        Bytes so far.
    entries
        A line for each message of any kind since ``taken`` was last asked: round (0: before the
        first), partition (None where it is not known yet, as in discovery), direction ("sent" or
        "received") and bytes. Messages of a round that was done twice are in it twice, and failed
        replies with 0.
    """

    budget_mib: int
    carried: int = 0
    sent: int = 0
    received: int = 0
    entries: list[dict[str, Any]] = field(default_factory=list)
    _received_in: dict[tuple[int, int | None], int] = field(default_factory=dict)

    def go_on(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take the entries of the process before into account, which are in the file already."""
        for entry in entries:
            self._sum(entry["round"], entry["partition"], entry["direction"], entry["bytes"])

    def count_sent(
        self, server_round: int, messages: Iterable[Message], partitions: Mapping[int, int]
    ) -> None:
        """Enter messages on their way; ``partitions`` gives each node's partition."""
        for message in messages:
            node = message.metadata.dst_node_id
            nbytes = message_bytes(message) + self.carried
            self._add(server_round, partitions.get(node), "sent", nbytes)

    def count_received(
        self, server_round: int, replies: Iterable[Message], partitions: Mapping[int, int]
    ) -> None:
        """Enter replies that arrived, whether or not they count."""
        for reply in replies:
            node = reply.metadata.src_node_id
            self._add(server_round, partitions.get(node), "received", message_bytes(reply))

    def count_recovered(self, server_round: int, partition: int, nbytes: int) -> None:
        """Enter what was received in a round before its server was killed, as far as it is not."""
        known = self._received_in.get((server_round, partition), 0)
        if nbytes > known:
            self._add(server_round, partition, "received", nbytes - known)

    def received_in(self, server_round: int) -> dict[int, int]:
        """Return the bytes that each partition sent in a round, the newest or one since ``taken``.

        Replies that do not count are in it, too.
        """
        found = self._received_in.items()
        return {p: n for (r, p), n in found if r == server_round and p is not None}

    def taken(self) -> list[dict[str, Any]]:
        """Return the entries for the file that keeps them; the sums stay.

        The order of arrival is chance; the ledgers of two equal runs are equal.
        """
        entries, self.entries = self.entries, []
        newest = max((key[0] for key in self._received_in), default=0)
        self._received_in = {k: n for k, n in self._received_in.items() if k[0] == newest}
        return sorted(
            entries, key=lambda e: (e["round"], e["direction"], str(e["partition"]), e["bytes"])
        )

    def _add(self, server_round: int, partition: int | None, direction: str, nbytes: int) -> None:
        self._sum(server_round, partition, direction, nbytes)
        self.entries.append(
            {
                "round": server_round,
                "partition": partition,
                "direction": direction,
                "bytes": nbytes,
            }
        )

    def _sum(self, server_round: int, partition: int | None, direction: str, nbytes: int) -> None:
        if direction == "sent":
            self.sent += nbytes
        else:
            self.received += nbytes
            key = server_round, partition
            self._received_in[key] = self._received_in.get(key, 0) + nbytes

    def account(self, server_round: int, partitions: Mapping[int, int]) -> "Account":
        """Return what enters messages of a round; ``partitions`` gives each node's partition."""
        return Account(self, server_round, partitions)

    @property
    def mib(self) -> float:
        """Both directions together, in MiB."""
        return (self.sent + self.received) / MIB

    @property
    def over_budget(self) -> bool:
        """Whether more was communicated than the budget allows."""
        return self.mib > self.budget_mib

    def has_room_for(self, more: int) -> bool:
        """Whether ``more`` bytes can be communicated without passing the budget."""
        return self.sent + self.received + more <= self.budget_mib * MIB

    def summary(self) -> dict[str, int | float]:
        """Return the ledger as it stands in a manifest."""
        return {
            "sent-bytes": self.sent,
            "received-bytes": self.received,
            "total-mib": round(self.mib, 3),
            "budget-mib": self.budget_mib,
        }


@dataclass(frozen=True)
class Account:
    """Enters in a ledger what is sent and received in one round."""

    ledger: Ledger
    server_round: int
    partitions: Mapping[int, int]

    def count_sent(self, messages: Iterable[Message]) -> None:
        """Enter messages on their way."""
        self.ledger.count_sent(self.server_round, messages, self.partitions)

    def count_received(self, replies: Iterable[Message]) -> None:
        """Enter replies that arrived, whether or not they count."""
        self.ledger.count_received(self.server_round, replies, self.partitions)
