"""Ask every client, before training, how long its rows are; nothing of their content is sent."""

from collections.abc import Mapping
from logging import WARNING
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.cache import reuse
from flowertune.base.errors import UserError
from flowertune.comms.failures import reason_of
from flowertune.comms.nodes import ask
from flowertune.data.lengths import Lengths, lengths_of
from flowertune.data.order import rows_of_round

PATIENCE = 3600.0  # seconds in which a client tokenises its rows


def answer_lengths(message: Message, cfg: dict[str, Any], context: Context) -> Message:
    """Return a client's answer: the tokens of each row's prompt, and of prompt and answer."""
    # Late: a server asks and never answers, and one that only averages needs no transformers.
    from template.app.dataset import load_tokens
    from template.app.models import load_tokenizer

    partition = int(context.node_config["partition-id"])
    partitions = int(context.node_config["num-partitions"])
    tokenizer = reuse(load_tokenizer, cfg, ("model.",))
    found = lengths_of(load_tokens(cfg, tokenizer, partition, partitions))
    answer = ConfigRecord()
    answer["prompt"] = [row.prompt for row in found]
    answer["total"] = [row.total for row in found]
    return Message(RecordDict({"lengths": answer}), reply_to=message)


def ask_lengths(grid: Grid, nodes: Mapping[int, int]) -> dict[int, list[Lengths]]:
    """Return the lengths of every partition's rows, by partition.

    Raises
    ------
    UserError
        If no client could answer, with what the first one said.
    """
    messages = [Message(RecordDict(), node, "query.lengths") for node in nodes.values()]
    partition_of = {node: partition for partition, node in nodes.items()}
    lengths: dict[int, list[Lengths]] = {}
    reasons = dict.fromkeys(nodes, f"no answer within {PATIENCE:.0f} s")
    for reply in ask(grid, messages, PATIENCE):
        partition = partition_of[reply.metadata.src_node_id]
        if reply.has_error():
            reasons[partition] = reason_of(reply)
            continue
        del reasons[partition]
        record: Any = reply.content.config_records["lengths"]
        pairs = zip(record["prompt"], record["total"], strict=True)
        lengths[partition] = [Lengths(prompt, total) for prompt, total in pairs]
    for partition, reason in sorted(reasons.items()):
        log(WARNING, "partition %d is not in the data report: %s", partition, reason)
    if reasons and not lengths:
        raise UserError(f"all {len(reasons)} clients failed: {reasons[min(reasons)]}")
    return dict(sorted(lengths.items()))


def rows_visited(
    lengths: Mapping[int, list[Lengths]], rounds: list[dict[str, Any]], cfg: Mapping[str, Any]
) -> float:
    """Return the share of all rows that were trained on in ``rounds``, from 0 to 1."""
    key = "train.training-arguments."
    needed = cfg[key + "max-steps"] * cfg[key + "per-device-train-batch-size"]
    needed *= cfg[key + "gradient-accumulation-steps"]
    usable = {p: sum(row.prompt < cfg["train.seq-length"] for row in lengths[p]) for p in lengths}
    visited: set[tuple[int, int]] = set()
    for line in rounds:
        moving = line["round"] if cfg["train.dynamic-data-seed"] else 1
        for partition in line["partitions"]:
            if rows := usable.get(partition, 0):
                picked = rows_of_round(rows, needed, cfg["seed"], moving, partition)
                visited.update((partition, row) for row in picked)
    total = sum(len(rows) for rows in lengths.values())
    return len(visited) / total if total else 0.0
