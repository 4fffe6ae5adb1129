"""The ledger: bytes of tensors sent and received, held against the budget."""

from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message

MIB = 1024**2


def tensor_bytes(message: Message) -> int:
    """Return the bytes of all tensors in a message, as they travel; 0 for an error."""
    if message.has_error():
        return 0
    records = message.content.array_records.values()
    return sum(len(array.data) for record in records for array in record.values())


@dataclass
class Ledger:
    """What a run has communicated, in bytes, by direction (the server's view)."""

    budget_mib: int
    sent: int = 0
    received: int = 0

    def count_sent(self, messages: Iterable[Message]) -> None:
        """Add messages on their way to clients."""
        self.sent += sum(map(tensor_bytes, messages))

    def count_received(self, replies: Iterable[Message]) -> None:
        """Add replies that arrived."""
        self.received += sum(map(tensor_bytes, replies))

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
