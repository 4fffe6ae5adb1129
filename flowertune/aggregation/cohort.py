"""The clients of a round, and how much each counts: fixed before the first bucket is asked for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

from flwr.app import Message
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
from flowertune.comms.failures import reason_of
from flowertune.comms.nodes import exchange

PATIENCE = 300.0  # seconds in which a client says what it has to give, where that is at hand


@dataclass(frozen=True)
class Cohort:
    """Offers in the order of partitions, and the node that made each."""

    manifests: tuple[ClientManifest, ...]
    nodes: dict[int, int]

    @property
    def total(self) -> int:
        """The sum of all weights."""
        return sum(manifest.weight for manifest in self.manifests)

    def record(self) -> list[dict[str, Any]]:
        """Return who takes part, with which weight and content, as JSON."""
        return [
            {"partition": o.partition, "weight": o.weight, "identity": o.identity}
            for o in self.manifests
        ]

    def without(self, partition: int) -> "Cohort":
        """Return the cohort of the others."""
        return Cohort(tuple(o for o in self.manifests if o.partition != partition), self.nodes)

    def only(self, record: list[dict[str, Any]]) -> "Cohort | None":
        """Return the cohort that ``record`` was made of, or None if it is not all here."""
        wanted = {entry["partition"] for entry in record}
        chosen = Cohort(tuple(o for o in self.manifests if o.partition in wanted), self.nodes)
        return chosen if chosen.record() == record else None


def judge(reply: Message, plan: str) -> ClientManifest | str:
    """Return a client's manifest, or the reason why it cannot take part."""
    if reply.has_error():
        return reason_of(reply)
    try:
        manifest = ClientManifest.of(reply.content.config_records["manifest"])
    except (KeyError, TypeError) as error:
        return f"its reply cannot be read ({type(error).__name__}: {error})"
    if manifest.weight < 1:
        return f"its weight is {manifest.weight}"
    if manifest.plan != plan:
        return (
            f"its plan is {manifest.plan[:12]} and the server's {plan[:12]}: its model has other "
            "tensors, shapes or values"
        )
    return manifest


def cohort_of(manifests: Iterable[tuple[ClientManifest, int]]) -> Cohort:
    """Return the cohort of (manifest, node) pairs.

    Raises
    ------
    UserError
        If the weights add up to more than sums can hold exactly.
    """
    pairs = sorted(manifests, key=lambda pair: pair[0].partition)
    cohort = Cohort(tuple(o for o, _ in pairs), {o.partition: node for o, node in pairs})
    if cohort.total >= MOST_WEIGHT:
        raise UserError(
            f"the weights of the {len(pairs)} clients add up to {cohort.total:,}; they must stay "
            f"below {MOST_WEIGHT:,} (num-examples of the SuperNodes)."
        )
    return cohort


def request_manifests(
    grid: Grid,
    nodes: Mapping[int, int],
    job: AggregationJob,
    plan: str,
    weights: Mapping[int, int] | None = None,
    patience: float = PATIENCE,
) -> tuple[Cohort, dict[int, str]]:
    """Ask what clients have to give; return those that take part, and the others' reasons.

    Parameters
    ----------
    nodes : Mapping[int, int]
        The node of each partition to ask.
    plan : str
        The digest of the server's plan; a client with another one does not take part.
    weights : Mapping[int, int] | None
        The weight of each partition, where it is known already.
    patience : float
        Seconds to wait for answers. A model of the hub is fetched before a client answers.
    """
    partition_of = {node: partition for partition, node in nodes.items()}
    asks = [manifest_request(node, job) for node in nodes.values()]
    good: list[tuple[ClientManifest, int]] = []
    reasons = dict.fromkeys(nodes, f"no answer within {patience:.0f} s")
    for reply in exchange(grid, asks, patience):
        node = reply.metadata.src_node_id
        partition = partition_of.get(node)
        if partition is None:
            continue
        manifest = judge(reply, plan)
        if isinstance(manifest, str):
            reasons[partition] = manifest
        elif manifest.partition != partition:
            reasons[partition] = f"it says now that it is partition {manifest.partition}"
        else:
            del reasons[partition]
            weight = manifest.weight if weights is None else weights[partition]
            good.append((replace(manifest, weight=weight), node))
    return cohort_of(good), reasons


def find_rejoined(
    grid: Grid,
    cohort: Cohort,
    manifest: ClientManifest,
    job: AggregationJob,
    plan: str,
    said: set[str],
) -> int | None:
    """Return the node that offers exactly what ``manifest`` says, or None while there is none.

    A SuperNode without a key comes back under a new node id, so unknown nodes are asked, too.

    Parameters
    ----------
    said : set[str]
        Why nodes did not do so far; each reason is logged once.

    Raises
    ------
    UserError
        If the partition is back with another weight or other content: that would mix two models.
    """
    there = set(grid.get_node_ids())
    others = set(cohort.nodes.values()) - {cohort.nodes[manifest.partition]}
    asks = [manifest_request(node, job) for node in sorted(there - others)]
    for reply in exchange(grid, asks, 60) if asks else ():
        found = judge(reply, plan)
        if isinstance(found, str):
            if found not in said:
                log(WARNING, "SuperNode %d does not do: %s", reply.metadata.src_node_id, found)
            said.add(found)
            continue
        if found.partition != manifest.partition:
            continue
        if job.kind == ADAPTER:
            found = replace(found, weight=manifest.weight)  # the weight was told with the training
        if found != manifest:
            raise UserError(
                f"partition {manifest.partition} came back with another weight or other content "
                f"({found} instead of {manifest}); parts of two models are never mixed. Go on with "
                "resume-from: the round starts anew with what its clients have then."
            )
        return reply.metadata.src_node_id
    return None
