"""The client's end: unpack the adapter, send back what became of it."""

from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord

from flowertune.client.kept_adapter import keep
from flowertune.comms.codec import must_be_finite, pack, unpack
from flowertune.comms.feedback import Feedback
from flowertune.config.choices import is_layerwise

UPDATE = "update"


def answer(
    received: dict[str, torch.Tensor],
    trained: dict[str, torch.Tensor],
    cfg: dict[str, Any],
    config: ConfigRecord,
    partition: int,
) -> ArrayRecord:
    """Return a client's reply in the run's precision; nothing yet where it is asked for in buckets.

    int8 sends the update (trained minus received), which is small and loses little, and keeps
    what rounding cut off for the partition's next update (error feedback: Seide et al., 1-bit
    SGD, 2014). The other kinds send the trained values.
    """
    trained = {name: tensor.detach().float().cpu() for name, tensor in trained.items()}
    kind = cfg["train.transport"]
    if is_layerwise(cfg):
        server_round = int(config["server-round"])  # type: ignore[arg-type]
        keep(trained, kind, str(config["state-key"]), server_round, partition)
        return ArrayRecord()
    if kind != "int8":
        return pack(trained, kind)
    feedback = Feedback.of_run(str(config["state-key"]), partition)
    server_round = int(config["server-round"])  # type: ignore[arg-type]
    residual = feedback.before(server_round)
    update = {
        name: tensor - received[name] + residual.get(name, torch.zeros(()))
        for name, tensor in trained.items()
    }
    # Kept as a residual, a NaN would spoil every later update of this partition.
    must_be_finite(update)
    record = pack(update, kind)
    sent = unpack(record)
    feedback.keep(server_round, {name: update[name] - sent[name] for name in update})
    return record
