"""The clients of a round, and how much each counts: fixed before the first bucket is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

from flwr.app import Message, RecordDict
from flwr.common import log
from flwr.serverapp import Grid

from flowertune.aggregation.accumulate import MOST_WEIGHT
from flowertune.aggregation.messages import (
    ADAPTER,
    AggregationJob,
    ClientManifest,
    manifest_request,
)
from flowertune.base.errors import UserError
from flowertune.comms.failures import InvalidReply, read_reply
from flowertune.comms.ledger import Ledger
from flowertune.comms.nodes import exchange, partitions_by_node

LONGEST = 1000  # characters of a plan's digest or of an identity
TIMEOUT = 300.0  # seconds in which a client sends its manifest, where the model is on its disk


@dataclass(frozen=True)
class Cohort:
    """The manifests of a round's clients, in the order of partitions, and the node of each."""

    manifests: tuple[ClientManifest, ...]
    nodes: dict[int, int]

    @property
    def total(self) -> int:
        """The sum of all weights."""
        return sum(manifest.weight for manifest in self.manifests)

    def record(self) -> list[dict[str, Any]]:
        """Return who takes part, with which weight and content, as JSON."""
        return [
            {"partition": m.partition, "weight": m.weight, "identity": m.identity}
            for m in self.manifests
        ]

    def without(self, *partitions: int) -> "Cohort":
        """Return the cohort of the others."""
        others = tuple(m for m in self.manifests if m.partition not in partitions)
        return Cohort(others, self.nodes)

    def only(self, record: list[dict[str, Any]]) -> "Cohort | None":
        """Return the cohort that ``record`` was made of, or None if it is not all here."""
        wanted = {entry["partition"] for entry in record}
        chosen = Cohort(tuple(m for m in self.manifests if m.partition in wanted), self.nodes)
        return chosen if chosen.record() == record else None


def validate_manifest(reply: Message, plan: str) -> ClientManifest:
    """Return the manifest that a client sent.

    Raises
    ------
    InvalidReply
        If it cannot take part, with the reason.
    """

    def manifest_in(content: RecordDict) -> ClientManifest:
        manifest = ClientManifest.of(content.config_records["manifest"])
        if max(len(manifest.plan), len(manifest.identity)) > LONGEST:
            raise InvalidReply(f"its plan or identity has more than {LONGEST:,} characters")
        return manifest

    manifest = read_reply(reply, manifest_in)
    if manifest.weight < 1:
        raise InvalidReply(f"its weight is {manifest.weight}")
    if manifest.plan != plan:
        raise InvalidReply(
            f"its plan is {manifest.plan[:12]} and the server's {plan[:12]}: its model has other "
            "tensors, shapes or values"
        )
    return manifest


def cohort_of(manifests: Iterable[tuple[ClientManifest, int]]) -> Cohort:
    """Return the cohort of (manifest, node) pairs."""
    pairs = sorted(manifests, key=lambda pair: pair[0].partition)
    nodes = {manifest.partition: node for manifest, node in pairs}
    return Cohort(tuple(manifest for manifest, _ in pairs), nodes)


def request_manifests(
    grid: Grid,
    nodes: Mapping[int, int],
    job: AggregationJob,
    plan: str,
    ledger: Ledger,
    weights: Mapping[int, int] | None = None,
    timeout: float = TIMEOUT,
) -> tuple[Cohort, dict[int, str]]:
    """Ask clients for their manifests; return those that take part, and the others' reasons.

    Parameters
    ----------
    nodes : Mapping[int, int]
        The node of each partition to ask.
    plan : str
        The digest of the server's plan; a client with another one does not take part.
    weights : Mapping[int, int] | None
        The weight of each partition, where it is known already.
    timeout : float
        Seconds to wait for answers. A model of the hub is fetched before a client answers.
    """
    partition_of = partitions_by_node(nodes)
    asks = [manifest_request(node, job) for node in nodes.values()]
    valid: list[tuple[ClientManifest, int]] = []
    reasons = dict.fromkeys(nodes, f"no answer within {timeout:.0f} s")
    # Sums are exact while all weights together stay below a limit, whoever takes part.
    most = (MOST_WEIGHT - 1) // max(1, len(nodes))
    for reply in exchange(grid, asks, timeout, ledger.account(job.server_round, partition_of)):
        node = reply.metadata.src_node_id
        partition = partition_of[node]
        try:
            manifest = validate_manifest(reply, plan)
            if manifest.partition != partition:
                raise InvalidReply(f"it says now that it is partition {manifest.partition}")
            weight = manifest.weight if weights is None else weights[partition]
            if weight > most:
                raise InvalidReply(
                    f"its weight is {weight:,}, and that of {len(nodes)} clients can be at most "
                    f"{most:,} each (num-examples of the SuperNode)"
                )
        except InvalidReply as error:
            reasons[partition] = str(error)
            continue
        del reasons[partition]
        valid.append((replace(manifest, weight=weight), node))
    return cohort_of(valid), reasons


def find_rejoined(
    grid: Grid,
    cohort: Cohort,
    manifest: ClientManifest,
    job: AggregationJob,
    plan: str,
    ledger: Ledger,
    logged: set[str],
) -> int | None:
    """Return the node that gives exactly what ``manifest`` says, or None while there is none.

    A SuperNode without a key comes back under a new node id, so unknown nodes are asked, too.

    Parameters
    ----------
    logged : set[str]
        Why nodes cannot take its place so far; each reason is logged once.

    Raises
    ------
    UserError
        If the partition is back with another weight or other content: that would mix two models.
    """
    there = set(grid.get_node_ids())
    others = set(cohort.nodes.values()) - {cohort.nodes[manifest.partition]}
    asks = [manifest_request(node, job) for node in sorted(there - others)]
    account = ledger.account(job.server_round, partitions_by_node(cohort.nodes))
    for reply in exchange(grid, asks, 60, account) if asks else ():
        node = reply.metadata.src_node_id
        try:
            given = validate_manifest(reply, plan)
        except InvalidReply as error:
            if str(error) not in logged:
                log(WARNING, "SuperNode %d cannot take part: %s", node, error)
            logged.add(str(error))
            continue
        if given.partition != manifest.partition:
            continue
        if job.kind == ADAPTER:
            given = replace(given, weight=manifest.weight)  # the weight came with the training
        if given != manifest:
            raise UserError(
                f"partition {manifest.partition} rejoined with another weight or other content "
                f"({given} instead of {manifest}); parts of two models are never mixed. Go on with "
                "resume-from: the round is then restarted with what its clients have."
            )
        return node
    return None
