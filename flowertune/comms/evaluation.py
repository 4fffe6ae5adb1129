"""Ask clients for the loss of the global adapter on the rows that they held out."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from flowertune.base.numbers import as_float, as_int
from flowertune.comms.codec import pack
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import NodeRegistry, exchange
from flowertune.comms.validation import (
    ARRAYS,
    CONFIG,
    METRICS,
    MOST_LOSS,
    MOST_TOKENS,
    partition_of,
)
from flowertune.config.settings import Settings
from flowertune.rules.held_out import LOSS


@dataclass(frozen=True)
class HeldOut:
    """A client's rows held out, their answer tokens, and the mean loss of these tokens."""

    rows: int
    tokens: int
    loss: float


def ask_losses(
    grid: Grid,
    cfg: Settings,
    registry: NodeRegistry,
    ledger: Ledger,
    server_round: int,
    adapter: Mapping[str, torch.Tensor],
    wanted: Mapping[int, int],
    beside: Mapping[str, ArrayRecord],
) -> tuple[dict[int, HeldOut], dict[int, str]]:
    """Return what the clients of some partitions say, and why others said nothing, by partition.

    Parameters
    ----------
    adapter : Mapping[str, torch.Tensor]
        The whole global adapter, float32; it travels in the run's precision.
    wanted : Mapping[int, int]
        How many rows each partition holds out.
    beside : Mapping[str, ArrayRecord]
        What a client needs beside the adapter, by record.
    """
    partitions = registry.by_node()
    config = ConfigRecord({"server-round": server_round})
    packed = pack(adapter, cfg.train.transport)
    content = RecordDict({**beside, ARRAYS: packed, CONFIG: config})
    messages = [Message(content, registry.nodes[p], MessageType.EVALUATE) for p in sorted(wanted)]
    account = ledger.account(server_round, partitions)
    said: dict[int, HeldOut] = {}
    reasons = dict.fromkeys(sorted(wanted), f"no answer within {cfg.strategy.timeout} s")
    for reply in exchange(grid, messages, cfg.strategy.timeout, account):
        partition = partitions[reply.metadata.src_node_id]
        try:
            said[partition] = _read(reply, partition, wanted[partition])
            del reasons[partition]
        except InvalidReply as error:
            reasons[partition] = str(error)
    return dict(sorted(said.items())), reasons


def _read(reply: Message, partition: int, rows: int) -> HeldOut:
    def held_out_in(content: RecordDict) -> HeldOut:
        metrics = content.metric_records[METRICS]
        given, tokens = as_int(metrics, "num-examples"), as_int(metrics, "tokens")
        loss = as_float(metrics, LOSS)
        if given != rows:
            raise InvalidReply(f"it says that it holds out {given:,} rows, and {rows:,} are due")
        if not rows <= tokens <= MOST_TOKENS:
            raise InvalidReply(f"it says that {rows:,} rows have {tokens:,} answer tokens")
        if not abs(loss) <= MOST_LOSS:
            raise InvalidReply(f"its {LOSS} is {loss}; {MOST_LOSS:,.0f} is the most that counts")
        if (said := partition_of(reply)) != partition:
            raise InvalidReply(f"it says now that it is partition {said}")
        return HeldOut(given, tokens, loss)

    return read_reply(reply, held_out_in)
