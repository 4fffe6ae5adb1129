"""How what a client trained travels: in the run's precision, or kept for buckets."""

from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord

from flowertune.comms.codec import must_be_finite, pack, unpack
from flowertune.comms.partition_files import RESIDUAL, TRAINED, PartitionFiles


def packed_reply(
    received: Mapping[str, torch.Tensor],
    trained: Mapping[str, torch.Tensor],
    kind: str,
    run_key: str,
    server_round: int,
    partition: int,
) -> ArrayRecord:
    """Return a client's reply in the run's precision.

    int8 sends the update (trained minus received), which is small and loses little, and keeps
    what rounding cut off for the partition's next update (error feedback: Seide et al., 1-bit
    SGD, 2014). The other kinds send the trained values.

    Parameters
    ----------
    received, trained : Mapping[str, torch.Tensor]
        Float32 tensors of the same names and shapes.
    kind : str
        float32, float16, bfloat16 or int8.

    Raises
    ------
    FloatingPointError
        With int8, if a value is not finite: kept as a residual it would spoil later updates.
    """
    if kind != "int8":
        return pack(trained, kind)
    files = PartitionFiles(run_key, partition, RESIDUAL)
    residual = files.before(server_round)
    update = {
        name: tensor - received[name] + residual.get(name, torch.zeros(()))
        for name, tensor in trained.items()
    }
    must_be_finite(update)
    record = pack(update, kind)
    sent = unpack(record)
    files.keep(server_round, {name: update[name] - sent[name] for name in update})
    return record


def keep_for_buckets(
    trained: Mapping[str, torch.Tensor], kind: str, run_key: str, server_round: int, partition: int
) -> None:
    """Write what a partition has trained to its disk, whole or not at all, in the run's precision.

    Raises
    ------
    FloatingPointError
        If a value is not finite.
    """
    tensors = {name: t.to(getattr(torch, kind)).contiguous() for name, t in trained.items()}
    must_be_finite(tensors)
    PartitionFiles(run_key, partition, TRAINED).keep(server_round, tensors, earlier=0)
