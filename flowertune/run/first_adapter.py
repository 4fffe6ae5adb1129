"""The adapter that round 1 starts from, with what only the base model's weights can give."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from logging import INFO, WARNING
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.base.text import counted
from flowertune.comms.codec import unpack
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import BEFORE, NodeRegistry, exchange
from flowertune.comms.queries import INITIAL
from flowertune.comms.validation import ARRAYS, SHIFT, validate_tensors
from flowertune.config.settings import EVA, MADE, SHIFTED, Settings
from flowertune.models.adapter import initial_adapter
from flowertune.models.shift import factors_of, plain

Tensors = Mapping[str, torch.Tensor]
FIRST = "first-adapter"  # in a state and a manifest: how the first adapter was made, and by whom
_KEPT = "shift/"  # before the names of its factors among what a strategy keeps


@dataclass(frozen=True)
class First:
    """The first adapter of a run that one client made; nothing where it was drawn.

    Attributes
    ----------
    about : dict[str, Any] | None
        How it was made, and by which partition.
    shift : Mapping[str, torch.Tensor]
        Its factors, where they were taken out of the base weights (``models.shift``).
    """

    about: dict[str, Any] | None = None
    shift: Tensors = field(default_factory=dict)

    @classmethod
    def of(cls, cfg: Settings, adapter: Tensors, maker: int | None) -> "First":
        """Return that of a new run."""
        how = cfg.model.lora.init
        if how not in MADE:
            return cls()
        shift = factors_of(adapter) if how in SHIFTED else {}
        return cls({"init": how, "partition": maker}, shift)

    @classmethod
    def taken(cls, kept: Tensors, body: Mapping[str, Any]) -> tuple[dict[str, Any], "First"]:
        """Return what a strategy itself kept, and the first adapter, from a run's state."""
        shift = {n.removeprefix(_KEPT): t for n, t in kept.items() if n.startswith(_KEPT)}
        own = {name: tensor for name, tensor in kept.items() if not name.startswith(_KEPT)}
        return own, cls(body.get(FIRST), shift)

    def kept(self) -> dict[str, torch.Tensor]:
        """Return what a state keeps of it: a round is trained again from its state alone."""
        return {f"{_KEPT}{name}": tensor for name, tensor in self.shift.items()}

    @property
    def nbytes(self) -> int:
        """The bytes of the factors that go to each client in each round."""
        return sum(len(array.data) for array in self._record.values())

    @cached_property
    def _record(self) -> ArrayRecord:
        return ArrayRecord({name: tensor.contiguous() for name, tensor in self.shift.items()})

    def sent_with(self, message: Message) -> Message:
        """Return a message of a round with the factors, which a client does not keep."""
        for name, record in self.records.items():
            message.content[name] = record
        return message

    @property
    def records(self) -> dict[str, ArrayRecord]:
        """The record of a message to a client that has the factors; none where there are none."""
        return {SHIFT: self._record} if self.shift else {}

    def export(self, adapter: Tensors) -> Tensors:
        """Return an adapter of the run as one on the base model as it came."""
        return plain(adapter, self.shift) if self.shift else adapter


def first_adapter(
    cfg: Settings,
    peft_config: Any,
    shapes: Tensors,
    registry: NodeRegistry,
    ledger: Ledger,
    grid: Grid,
) -> tuple[dict[str, torch.Tensor], int | None]:
    """Return the adapter to start from, float32 on the CPU, and the partition that gave parts.

    DoRA's magnitudes, modules to save and biases start from the base model's weights, which the
    server does not have; the factors of PiSSA and OLoRA are made of them, and those of EVA of one
    client's rows. The partitions are asked one by one until one answers, or two fail alike; what
    that sends is round 0 of the ledger.

    Parameters
    ----------
    shapes : Mapping[str, torch.Tensor]
        The adapter's tensors on the meta device.

    Raises
    ------
    UserError
        If no client could give the values, with what the first one said.
    """
    adapter, missing = initial_adapter(cfg, peft_config, shapes)
    if not missing:
        return adapter, None
    wanted = {name: tuple(shapes[name].shape) for name in missing}
    reasons: list[str] = []
    for partition in sorted(registry.nodes):
        try:
            given = _ask(cfg, wanted, partition, registry, ledger, grid)
            if (how := cfg.model.lora.init) in MADE:
                what = "its rows" if how == EVA else "its base model's weights"
                log(INFO, "model.lora.init is %s: partition %d made the first adapter of %s",
                    how, partition, what)  # fmt: skip
            return {**adapter, **given}, partition
        except InvalidReply as error:
            reasons.append(str(error))
            log(WARNING, "no values of the base model from partition %d: %s", partition, error)
            if reasons[0] == reasons[-1] and len(reasons) == 2:
                break  # what two clients cannot do, the others cannot
    more = f" and {counted(len(missing) - 1, 'more tensor')}" if missing[1:] else ""
    raise UserError(
        f"the first adapter needs values of the base model ({missing[0]}{more}), and no client "
        f"could give them; partition {min(registry.nodes)}: {reasons[0]}"
    )


def _ask(
    cfg: Settings,
    wanted: Mapping[str, tuple[int, ...]],
    partition: int,
    registry: NodeRegistry,
    ledger: Ledger,
    grid: Grid,
) -> dict[str, torch.Tensor]:
    content = RecordDict({"names": ConfigRecord({"names": list(wanted)})})
    message = Message(content, registry.nodes[partition], INITIAL)
    account = ledger.account(BEFORE, registry.by_node())
    replies = exchange(grid, [message], cfg.strategy.timeout, account)
    if not replies:
        raise InvalidReply(f"no answer within {cfg.strategy.timeout} s")

    def tensors_in(content: RecordDict) -> dict[str, torch.Tensor]:
        tensors = unpack(content.array_records[ARRAYS])
        validate_tensors(tensors, wanted)
        return tensors

    return read_reply(replies[0], tensors_in)
