"""The adapter that round 1 starts from, with what only the base model's weights can give."""

from collections.abc import Mapping
from logging import WARNING
from typing import Any

import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.base.text import counted
from flowertune.comms.codec import unpack
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import BEFORE, NodeRegistry, exchange
from flowertune.comms.queries import INITIAL
from flowertune.comms.validation import ARRAYS, validate_tensors
from flowertune.config.settings import Settings
from flowertune.models.adapter import initial_adapter

Tensors = Mapping[str, torch.Tensor]


def first_adapter(
    cfg: Settings,
    peft_config: Any,
    shapes: Tensors,
    registry: NodeRegistry,
    ledger: Ledger,
    grid: Grid,
) -> dict[str, torch.Tensor]:
    """Return the adapter to start from: float32 on the CPU.

    DoRA's magnitudes, modules to save and biases start from the base model's weights, which the
    server does not have. Any client would give the same values, so the partitions are asked one
    by one until one answers, or two fail alike; what that sends is round 0 of the ledger.

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
        return adapter
    wanted = {name: tuple(shapes[name].shape) for name in missing}
    reasons: list[str] = []
    for partition in sorted(registry.nodes):
        try:
            return {**adapter, **_ask(cfg, wanted, partition, registry, ledger, grid)}
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
