"""What a client answers in an aggregation: its manifest, and buckets of its tensors.

Nothing here imports transformers, peft or datasets: in the Deployment Engine every message starts
a new process.
"""

from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict

from flowertune.aggregation import messages, shapes
from flowertune.aggregation.plan import Plan
from flowertune.aggregation.sources import FileSource, Source, SyntheticSource, weight_files
from flowertune.base.errors import UserError
from flowertune.comms.partition_files import TRAINED, PartitionFiles
from flowertune.config.paths import local_path
from flowertune.config.settings import Settings
from flowertune.profiling.phases import profile_of

# What a SuperNode may be started with (flower-supernode --node-config).
WEIGHT, FOLDER = "num-examples", "model-path"


def answer_manifest(message: Message, context: Context, cfg: Settings) -> Message:
    """Reply with this client's manifest: its plan's digest, its weight, its identity."""
    job = messages.AggregationJob.of(message.content.config_records["job"])
    source = source_of(cfg, job, context.node_config)
    plan = Plan(source.tensors, job.bucket_bytes)
    partition = int(context.node_config["partition-id"])
    weight = weight_of(cfg, context.node_config)
    manifest = messages.ClientManifest(partition, weight, plan.digest, source.identity)
    return Message(RecordDict({"manifest": manifest.record()}), reply_to=message)


def answer_bucket(message: Message, context: Context, cfg: Settings) -> Message:
    """Reply with the bytes of a bucket, or of a part of one.

    Raises
    ------
    UserError
        If the server's plan is not the one this client's tensors give.
    """
    job = messages.AggregationJob.of(message.content.config_records["job"])
    ask = message.content.config_records["ask"]
    source = source_of(cfg, job, context.node_config)
    plan = Plan(source.tensors, job.bucket_bytes)
    if plan.digest != ask["plan"]:
        raise UserError(
            f"the server's plan is {str(ask['plan'])[:12]} and this client's {plan.digest[:12]}: "
            "its model has other tensors, shapes or values; give all clients the same model."
        )
    part = messages.part_in(ask)
    pieces = plan.pieces(part)
    with profile_of(cfg, "client").phase("serve", sum(piece.nbytes for piece in pieces)):
        arrays = messages.pack(pieces, [source.read(piece) for piece in pieces])
    about = ConfigRecord({**vars(part), "identity": source.identity})
    return Message(RecordDict({"arrays": arrays, "about": about}), reply_to=message)


def source_of(cfg: Settings, job: messages.AggregationJob, node: Mapping[str, Any]) -> Source:
    """Return this client's weights: trained, synthetic, or a checkpoint's.

    The SuperNode's own ``model-path``, where given, stands in for ``model.name``.

    Raises
    ------
    UserError
        If they are not there.
    """
    partition = int(node["partition-id"])
    if job.kind == messages.ADAPTER:
        return FileSource(
            [PartitionFiles(job.state_key, partition, TRAINED).of_round(job.server_round)]
        )
    if cfg.model.weights == "synthetic":
        return SyntheticSource(shapes.model_tensors(cfg), cfg.seed, partition)
    own = node.get(FOLDER)
    folder = local_path(str(own), cfg.app_dir) if own else shapes.fetched_folder(cfg)
    return FileSource(weight_files(folder), shapes.wire_dtype(cfg))


def weight_of(cfg: Settings, node: Mapping[str, Any]) -> int:
    """Return how much this client counts in a mean of whole models: a whole number.

    It is the SuperNode's ``num-examples`` where given. Else all count the same; synthetic clients
    count 1, 2, 3, … so that a wrong weight shows.

    Raises
    ------
    UserError
        If it is no whole number above 0.
    """
    partition = int(node["partition-id"])
    given = node.get(WEIGHT, partition + 1 if cfg.model.weights == "synthetic" else 1)
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        raise UserError(
            f"{WEIGHT} of this SuperNode is {given!r}; use a whole number of at least 1 "
            "(flower-supernode --node-config)."
        )
    return given
