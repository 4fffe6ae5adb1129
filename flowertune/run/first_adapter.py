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
from flowertune.comms.failures import InvalidReply, reason_of
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry, exchange
from flowertune.comms.queries import INITIAL
from flowertune.comms.validation import ARRAYS, validate_tensors
from flowertune.config.settings import Settings
from flowertune.models.adapter import initial_adapter

ROUND = 0  # of the ledger: what was sent before the first round

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
    by one until one answers; what that sends is entered in the ledger as round 0.

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
    reasons = []
    for partition in sorted(registry.nodes):
        try:
            return {**adapter, **_ask(cfg, wanted, partition, registry, ledger, grid)}
        except InvalidReply as error:
            reasons.append(f"partition {partition}: {error}")
            log(WARNING, "no values of the base model from %s", reasons[-1])
    more = f" and {counted(len(missing) - 1, 'more tensor')}" if missing[1:] else ""
    raise UserError(
        f"the first adapter needs values of the base model ({missing[0]}{more}), and no client "
        f"could give them; {reasons[0]}"
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
    ledger.count_sent(ROUND, [message], registry.by_node())
    replies = exchange(grid, [message], cfg.strategy.timeout)
    ledger.count_received(ROUND, replies, registry.by_node())
    if not replies:
        raise InvalidReply(f"no answer within {cfg.strategy.timeout} s")
    if replies[0].has_error():
        raise InvalidReply(reason_of(replies[0]))
    try:
        tensors = unpack(replies[0].content.array_records[ARRAYS])
    except Exception as error:  # bytes from elsewhere, which NumPy reads: it may raise anything
        raise InvalidReply(f"its reply cannot be read ({type(error).__name__}: {error})") from None
    validate_tensors(tensors, wanted)
    return tensors
