"""Trained adapters, layer-wise: a client keeps what it trained, the server asks for buckets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from flwr.serverapp import Grid

from flowertune.aggregation import messages
from flowertune.aggregation.average import Averaging, AveragingOptions
from flowertune.aggregation.cohort import request_manifests
from flowertune.aggregation.dtypes import OF_SETTING
from flowertune.aggregation.journal import Journal
from flowertune.aggregation.norms import UpdateNorms
from flowertune.aggregation.plan import Plan, Tensor
from flowertune.aggregation.sinks import MemorySink
from flowertune.base.numbers import as_int
from flowertune.base.text import MIB
from flowertune.comms.channel import Channel
from flowertune.comms.ledger import Ledger
from flowertune.config.settings import Settings


def plan_of(like: Mapping[str, torch.Tensor], cfg: Settings) -> Plan:
    """Return the plan for adapters with the names and shapes of ``like``."""
    dtype = OF_SETTING[cfg.train.transport]
    tensors = [Tensor(name, tuple(t.shape), dtype) for name, t in like.items()]
    return Plan(tensors, int(cfg.aggregation.bucket_mb * MIB))


def mean_adapter(
    grid: Grid,
    cfg: Settings,
    like: Mapping[str, torch.Tensor],
    replies: Mapping[int, Message],
    job_key: tuple[str, int],
    ledger: Ledger,
    profile: Any,
    sent: Mapping[int, Mapping[str, torch.Tensor]],
) -> tuple[dict[str, torch.Tensor], dict[int, str], dict[int, str]]:
    """Return the mean (float32) of what clients keep, who is in it, and why others are not.

    Who is in it comes with the sha256 of what it gave.

    It is the mean of whole replies to the bit: float64 sums of values times examples.

    Parameters
    ----------
    replies : Mapping[int, Message]
        The clients' replies to the training message, by partition: their examples are weights.
    job_key : tuple[str, int]
        The run's key and the round.
    sent : Mapping[int, Mapping[str, torch.Tensor]]
        The adapter that each partition was sent: an update that is far from all others does not
        count (strategy.max-update-norm).

    Raises
    ------
    UserError
        If a client is lost, and aggregation.on-failure does not go on without it.
    """
    state_key, server_round = job_key
    plan = plan_of(like, cfg)
    job = messages.AggregationJob(messages.ADAPTER, server_round, state_key, plan.bucket_bytes)
    nodes = {partition: reply.metadata.src_node_id for partition, reply in replies.items()}
    weights = {
        partition: as_int(reply.content.metric_records["metrics"], "num-examples")
        for partition, reply in replies.items()
    }
    cohort, reasons = request_manifests(grid, nodes, job, plan.digest, ledger, weights)
    if not cohort.manifests:
        return {}, {}, reasons
    sink = MemorySink(plan, torch.float32.itemsize)
    options = AveragingOptions(
        window=cfg.aggregation.window,
        on_failure=cfg.aggregation.on_failure,
        timeout=cfg.strategy.timeout,
        result="F32",
    )
    channel = Channel(grid, ledger, server_round, profile)
    journal = lambda chosen: Journal(None, {})  # noqa: E731 (a round of adapters is done anew)
    norms = UpdateNorms(sent, cfg.strategy.max_update_norm)
    averaging = Averaging(grid, channel, job, plan, sink, journal, options, norms=norms)
    cohort, _ = averaging.run(cohort)
    mean = {
        name: torch.from_numpy(np.frombuffer(sink.data[name], np.float32)).reshape(t.shape)
        for name, t in like.items()
    }
    digests = norms.digests()
    inside = {manifest.partition: digests[manifest.partition] for manifest in cohort.manifests}
    return mean, inside, {**reasons, **averaging.left_out}
