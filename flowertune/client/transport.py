"""How what a client trained travels: in the run's precision, or kept for buckets."""

from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord

from flowertune.comms.codec import must_be_finite, pack, unpack
from flowertune.comms.partition_files import PartitionFiles


def packed_reply(
    received: Mapping[str, torch.Tensor],
    trained: Mapping[str, torch.Tensor],
    kind: str,
    residuals: PartitionFiles | None,
    server_round: int,
    last_round: int,
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
    residuals : PartitionFiles
        Where int8 keeps what rounding cut off; None to keep nothing.
    last_round : int
        The last round in which this partition's reply counted; 0 where there is none.

    Raises
    ------
    FloatingPointError
        With int8, if a value is not finite: kept as a residual it would spoil later updates.
    """
    if kind != "int8":
        return pack(trained, kind)
    residual = residuals.load(last_round) if residuals else {}
    update = {
        name: tensor - received[name] + residual.get(name, torch.zeros(()))
        for name, tensor in trained.items()
    }
    must_be_finite(update)
    record = pack(update, kind)
    sent = unpack(record)
    cut_off = {name: update[name] - sent[name] for name in update}
    if residuals is None:
        return record
    # What a method does not send in every round waits for the round in which it does.
    residuals.keep(server_round, {**residual, **cut_off}, last_round)
    return record


def keep_for_buckets(
    trained: Mapping[str, torch.Tensor], kind: str, files: PartitionFiles, server_round: int
) -> None:
    """Write what a partition has trained to its disk, whole or not at all, in the run's precision.

    Raises
    ------
    FloatingPointError
        If a value is not finite.
    """
    tensors = {name: t.to(getattr(torch, kind)).contiguous() for name, t in trained.items()}
    must_be_finite(tensors)
    files.keep(server_round, tensors)
