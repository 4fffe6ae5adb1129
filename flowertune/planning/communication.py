"""Communication of a run in closed form, from the shapes of its adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from flowertune.base.text import MIB
from flowertune.config.checks import evaluating_clients, is_evaluated
from flowertune.config.settings import Settings

VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
SCALE_BYTES, SCALE_BLOCK, SCALES = 4, 64, ".scales"  # as comms.codec has them

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


def array_bytes(name: str, shape: tuple[int, ...], transport: str) -> int:
    """Return what the run's ledger counts for one tensor: values, headers and names."""
    names = 2 * len(name) + len(SCALES) if transport == "int8" else len(name)
    return _tensor_bytes(tuple(shape), transport) + names


@dataclass(frozen=True)
class Traffic:
    """Bytes of each round, all its clients together.

    ``down`` and ``up`` are those of the tensors' values, ``counted`` all that the ledger counts of
    tensors, both directions.
    """

    down: tuple[int, ...]
    up: tuple[int, ...]
    counted: tuple[int, ...]

    @classmethod
    def alike(cls, values: int, counted: int, clients: int, rounds: int) -> "Traffic":
        """Return that of rounds in which each client gets an adapter and answers with one."""
        return cls((clients * values,) * rounds, (clients * values,) * rounds,
                   (2 * clients * counted,) * rounds)  # fmt: skip

    def with_more(self, down: int, counted: int) -> "Traffic":
        """Return that of rounds in which more is sent to clients."""
        more = tuple(nbytes + down for nbytes in self.down)
        return Traffic(more, self.up, tuple(nbytes + counted for nbytes in self.counted))


def with_evaluations(
    traffic: Traffic, cfg: Settings, supernodes: int, values: int, message: int
) -> Traffic:
    """Return what a run sends with its evaluations: the adapter, to each client that evaluates.

    Parameters
    ----------
    values, message : int
        Bytes of an adapter's values, and of what the ledger counts of one.
    """
    clients = evaluating_clients(cfg, supernodes)
    times = [clients * is_evaluated(cfg, n) for n in range(1, len(traffic.down) + 1)]
    return Traffic(
        tuple(n + k * values for n, k in zip(traffic.down, times, strict=True)),
        traffic.up,
        tuple(n + k * message for n, k in zip(traffic.counted, times, strict=True)),
    )


@dataclass(frozen=True)
class Communication:
    """What a run sends and receives; ``adapter_bytes`` counts a whole adapter's values."""

    adapter_bytes: int
    clients: int
    rounds: int
    budget_mib: int
    traffic: Traffic

    @property
    def round_mib(self) -> float:
        """MiB of the values of one round, both directions; the mean where rounds differ."""
        return self.total_mib / self.rounds

    @property
    def total_mib(self) -> float:
        """MiB of the values of the whole run."""
        return (sum(self.traffic.down) + sum(self.traffic.up)) / MIB

    @property
    def counted_mib(self) -> float:
        """MiB of the whole run as its ledger will count them, headers and names and all."""
        return sum(self.traffic.counted) / MIB

    @property
    def rounds_that_fit(self) -> int:
        """How many rounds the budget allows, as the ledger counts; later ones as the last two."""
        left, counted = self.budget_mib * MIB, self.traffic.counted
        for done, nbytes in enumerate(counted):
            if nbytes > left:
                return done
            left -= nbytes
        return len(counted) + left * len(counted[-2:]) // sum(counted[-2:])
