"""Ask before training how long every client's rows are, and count which were visited."""

from collections.abc import Mapping
from logging import WARNING
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.comms.failures import reason_of
from flowertune.comms.nodes import NodeRegistry, exchange
from flowertune.comms.queries import LENGTHS
from flowertune.config.settings import Settings
from flowertune.data.lengths import Lengths
from flowertune.data.order import rows_of_round
from flowertune.data.steps import rows_needed

TIMEOUT = 3600.0  # seconds in which a client tokenizes its rows


def ask_lengths(grid: Grid, registry: NodeRegistry) -> dict[int, list[Lengths]]:
    """Return the lengths of every partition's rows, by partition.

    Raises
    ------
    UserError
        If no client could answer, with what the first one said.
    """
    partitions = registry.by_node()
    messages = [Message(RecordDict(), node, LENGTHS) for node in partitions]
    lengths: dict[int, list[Lengths]] = {}
    reasons = dict.fromkeys(registry.nodes, f"no answer within {TIMEOUT:.0f} s")
    for reply in exchange(grid, messages, TIMEOUT):
        partition = partitions[reply.metadata.src_node_id]
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
    lengths: Mapping[int, list[Lengths]], rounds: list[dict[str, Any]], cfg: Settings
) -> float:
    """Return the share of all rows that were trained on in ``rounds``, from 0 to 1."""
    needed = rows_needed(cfg)
    usable = {p: sum(row.prompt < cfg.train.seq_length for row in lengths[p]) for p in lengths}
    visited: set[tuple[int, int]] = set()
    for line in rounds:
        moving = line["round"] if cfg.train.dynamic_data_seed else 1
        for partition in line["partitions"]:
            if rows := usable.get(partition, 0):
                picked = rows_of_round(rows, needed, cfg.seed, moving, partition)
                visited.update((partition, row) for row in picked)
    total = sum(len(rows) for rows in lengths.values())
    return len(visited) / total if total else 0.0
