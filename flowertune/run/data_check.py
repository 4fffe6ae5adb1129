"""Ask before training how long every client's rows are, and count which were visited."""

from collections.abc import Mapping, Sequence
from logging import WARNING
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.base.errors import UserError
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.comms.nodes import BEFORE, NodeRegistry, exchange
from flowertune.comms.queries import LENGTHS
from flowertune.comms.validation import MOST_EXAMPLES
from flowertune.config.settings import Settings
from flowertune.data.lengths import BAD, Lengths
from flowertune.data.order import rows_of_round
from flowertune.data.steps import rows_needed

TIMEOUT = 3600.0  # seconds in which a client tokenizes its rows
MOST_TOKENS = 2**31  # of a row


def ask_lengths(grid: Grid, registry: NodeRegistry) -> dict[int, list[Lengths]]:
    """Return the lengths of every partition's rows, by partition.

    One client is asked first, and a second one where it failed: data that cannot be read is seen
    once, and not on every client.

    Raises
    ------
    UserError
        If no client could answer, or the first two failed for the same reason; with that reason.
    """
    lengths: dict[int, list[Lengths]] = {}
    reasons: dict[int, str] = {}
    left = sorted(registry.nodes)
    while left:
        asked = left if lengths or len(reasons) > 1 else left[:1]
        left = left[len(asked) :]
        answers, failures = _ask(grid, registry, asked)
        lengths |= answers
        reasons |= failures
        if left and len(reasons) == 2 and len(set(reasons.values())) == 1:
            raise UserError(f"the first two clients failed alike: {reasons[min(reasons)]}")
    for partition, reason in sorted(reasons.items()):
        log(WARNING, "partition %d is not in the data report: %s", partition, reason)
    if reasons and not lengths:
        clients = "the one client" if len(reasons) == 1 else f"all {len(reasons)} clients"
        raise UserError(f"{clients} failed: {reasons[min(reasons)]}")
    return dict(sorted(lengths.items()))


def _ask(
    grid: Grid, registry: NodeRegistry, partitions: Sequence[int]
) -> tuple[dict[int, list[Lengths]], dict[int, str]]:
    """Ask some partitions; return the lengths of those that answered, and why others did not."""
    if not partitions:
        return {}, {}
    messages = [Message(RecordDict(), registry.nodes[p], LENGTHS) for p in partitions]
    by_node = registry.by_node()
    lengths: dict[int, list[Lengths]] = {}
    reasons = dict.fromkeys(partitions, f"no answer within {TIMEOUT:.0f} s")
    for reply in exchange(grid, messages, TIMEOUT, registry.ledger.account(BEFORE, by_node)):
        partition = by_node[reply.metadata.src_node_id]
        try:
            lengths[partition] = read_reply(reply, _lengths_in)
            del reasons[partition]
        except InvalidReply as error:
            reasons[partition] = str(error)
    return lengths, reasons


def _lengths_in(content: RecordDict) -> list[Lengths]:
    record: Any = content.config_records["lengths"]
    prompts, totals = record["prompt"], record["total"]
    if len(prompts) > MOST_EXAMPLES:
        raise InvalidReply(f"it says that it has {len(prompts):,} rows")
    rows = [Lengths(prompt, total) for prompt, total in zip(prompts, totals, strict=True)]
    for row in rows:
        kinds = {type(row.prompt), type(row.total)}
        if row != BAD and not (kinds == {int} and 0 <= row.prompt <= row.total < MOST_TOKENS):
            raise InvalidReply(f"it says that a row has {row.prompt} of {row.total} tokens")
    return rows


def rows_visited(
    lengths: Mapping[int, list[Lengths]], rounds: list[dict[str, Any]], cfg: Settings
) -> float:
    """Return the share of all rows that were trained on in ``rounds``, from 0 to 1."""
    needed = rows_needed(cfg)
    length = cfg.train.seq_length
    usable = {
        p: sum(not row.bad and row.prompt < length for row in rows) for p, rows in lengths.items()
    }
    visited: set[tuple[int, int]] = set()
    for line in rounds:
        moving = line["round"] if cfg.train.dynamic_data_seed else 1
        for partition in line["partitions"]:
            if rows := usable.get(partition, 0):
                picked = rows_of_round(rows, needed, cfg.seed, moving, partition)
                visited.update((partition, row) for row in picked)
    total = sum(len(rows) for rows in lengths.values())
    return len(visited) / total if total else 0.0
