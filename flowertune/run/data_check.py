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
from flowertune.data.held_out import held_out_of
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
    prompts, totals, copies = record["prompt"], record["total"], record.get("copies", [])
    if len(prompts) > MOST_EXAMPLES:
        raise InvalidReply(f"it says that it has {len(prompts):,} rows")
    sizes = list(zip(prompts, totals, strict=True))
    for prompt, total in sizes:
        kinds = {type(prompt), type(total)}
        if (prompt, total) != BAD and not (kinds == {int} and 0 <= prompt <= total < MOST_TOKENS):
            raise InvalidReply(f"it says that a row has {prompt} of {total} tokens")
    wrong = [n for n in copies if type(n) is not int or not 0 < n < len(sizes)]
    if wrong or len(set(copies)) < len(copies):
        raise InvalidReply("it names rows as copies that it does not have, or names one twice")
    known = set(copies)
    return [Lengths(*size, number in known) for number, size in enumerate(sizes)]


def usable_rows(lengths: Mapping[int, list[Lengths]], seq_length: int) -> dict[int, int]:
    """Return how many rows of each partition have room for an answer."""
    return {
        partition: sum(not row.bad and row.prompt < seq_length for row in rows)
        for partition, rows in lengths.items()
    }


class VisitedRows:
    """Which rows were trained on, as far as they were asked for: each round is looked at once."""

    def __init__(self, lengths: Mapping[int, list[Lengths]], cfg: Settings) -> None:
        self._cfg = cfg
        self._needed = rows_needed(cfg)
        self._usable = usable_rows(lengths, cfg.train.seq_length)
        if cfg.train.evaluate_every:
            # As if no row of a partition were a copy of one that is held out.
            share = cfg.train.held_out
            self._usable = {p: n - held_out_of(n, share) for p, n in self._usable.items()}
        self._total = sum(len(rows) for rows in lengths.values())
        self._visited: dict[int, set[int]] = {partition: set() for partition in lengths}
        self._rounds = 0

    def share(self, rounds: Sequence[Mapping[str, Any]]) -> float:
        """Return the share of all rows that were trained on in ``rounds``, from 0 to 1.

        Parameters
        ----------
        rounds : Sequence[Mapping[str, Any]]
            The lines of all finished rounds; those of earlier calls come first.
        """
        for line in rounds[self._rounds :]:
            moving = line["round"] if self._cfg.train.dynamic_data_seed else 1
            for partition in line["partitions"]:
                rows, visited = self._usable.get(partition, 0), self._visited.get(partition, set())
                if len(visited) < rows:
                    seed = self._cfg.seed
                    visited.update(rows_of_round(rows, self._needed, seed, moving, partition))
        self._rounds = len(rounds)
        visits = sum(len(visited) for visited in self._visited.values())
        return visits / self._total if self._total else 0.0
