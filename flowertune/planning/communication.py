"""Communication of a run in closed form, from the shapes of its adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from flowertune.base.text import MIB

VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
SCALE_BYTES, SCALE_BLOCK = 4, 64  # as comms.codec has them

Shapes = Mapping[str, tuple[int, ...]]


def adapter_bytes(shapes: Shapes, transport: str) -> int:
    """Return the bytes of an adapter's values on the wire; with int8, its scales among them."""
    counts = [prod(shape) for shape in shapes.values()]
    scales = sum(-(-count // SCALE_BLOCK) for count in counts) if transport == "int8" else 0
    return sum(counts) * VALUE_BYTES[transport] + scales * SCALE_BYTES


def message_bytes(shapes: Shapes, transport: str) -> int:
    """Return what the run's ledger counts for one adapter: its values and each array's header."""
    return sum(_tensor_bytes(tuple(shape), transport) for shape in shapes.values())


@cache
def _tensor_bytes(shape: tuple[int, ...], transport: str) -> int:
    # Late: torch takes seconds to import, and a plan that was made before does without.
    import torch

    from flowertune.comms.codec import pack

    arrays = pack({"a": torch.zeros(shape)}, transport).values()
    return sum(len(array.data) for array in arrays)


@dataclass(frozen=True)
class Communication:
    """What a run sends and receives; every client gets an adapter and answers with one.

    ``adapter_bytes`` counts an adapter's values only, ``message_bytes`` the headers as well.
    """

    adapter_bytes: int
    message_bytes: int
    clients: int
    rounds: int
    budget_mib: int

    @property
    def round_mib(self) -> float:
        """MiB of the values of one round, both directions."""
        return self.clients * 2 * self.adapter_bytes / MIB

    @property
    def total_mib(self) -> float:
        """MiB of the values of the whole run: clients x 2 x rounds x adapter."""
        return self.round_mib * self.rounds

    @property
    def counted_mib(self) -> float:
        """MiB of the whole run as its ledger will count them, headers and all."""
        return self.clients * 2 * self.rounds * self.message_bytes / MIB

    @property
    def rounds_that_fit(self) -> int:
        """How many rounds the budget allows, as the ledger counts."""
        return self.budget_mib * MIB // (self.clients * 2 * self.message_bytes)
