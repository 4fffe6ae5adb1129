"""Rows dealt out by flwr-datasets' own partitioners."""

import warnings
from typing import Any

from datasets import Dataset

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.config.partitioners import NAME, OPTIONS, Scheme, sizes_in
from flowertune.config.settings import WHERE


def dealt(rows: Dataset, scheme: Scheme, count: int) -> Any:
    """Return flwr-datasets' partitioner with ``rows`` dealt out to ``count`` partitions.

    ``load_partition(number)`` and ``num_partitions`` of it work. Each partition has a row.

    Raises
    ------
    UserError
        If the rows cannot be dealt out so; says why, and what to change.
    """
    if scheme.column is not None and scheme.column not in rows.column_names:
        there = ", ".join(sorted(rows.column_names))
        raise _refusal(scheme, f"the dataset has no column {scheme.column!r}: it has {there}")
    try:
        with warnings.catch_warnings():
            # It warns of each draw that it does again, and says at the end if none was good.
            warnings.simplefilter("ignore")
            partitioner = _made(scheme, count)
            partitioner.dataset = rows
            made = partitioner.num_partitions
            sizes = [len(partitioner.load_partition(number)) for number in range(made)]
    except Exception as error:  # flwr-datasets, NumPy and Arrow raise many kinds
        raise _refusal(scheme, f"flwr-datasets cannot: {one_line(error, 200)}") from error
    if made != count:
        raise _refusal(
            scheme,
            f"that makes {made} partitions for {count} SuperNodes (flowertune connect "
            f"--num-supernodes {made} sets up as many)",
        )
    if empty := [number for number, size in enumerate(sizes) if not size]:
        raise _refusal(scheme, f"partition {empty[0]} of {count} would have no rows")
    return partitioner


def _made(scheme: Scheme, count: int) -> Any:
    # Late: it takes a second, most of it for plots, and IID rows of this machine do without.
    from flwr_datasets import partitioner as of

    match scheme.name:
        case "dirichlet":
            return of.DirichletPartitioner(
                count, scheme["by"], scheme["alpha"], min_partition_size=scheme["min-rows"],
                self_balancing=scheme["balanced"], seed=scheme["seed"],
            )  # fmt: skip
        case "pathological":
            return of.PathologicalPartitioner(
                count, scheme["by"], scheme["classes"], scheme["mode"], seed=scheme["seed"]
            )
        case "shard":
            return of.ShardPartitioner(count, scheme["by"], scheme["shards"], seed=scheme["seed"])
        case "natural-id":
            # One value a group, sorted: NaturalIdPartitioner, without a bar of its progress.
            return of.GroupedNaturalIdPartitioner(scheme["by"], scheme["ids"], sort_unique_ids=True)
        case "continuous":
            return of.ContinuousPartitioner(
                count, scheme["by"], scheme["strictness"], seed=scheme["seed"]
            )
        case "size":
            return of.SizePartitioner(sizes_in(scheme["sizes"]))
        case name:
            by_size = {
                "linear": of.LinearPartitioner,
                "square": of.SquarePartitioner,
                "exponential": of.ExponentialPartitioner,
                "iid": of.IidPartitioner,
            }
            return by_size[name](count)


def _refusal(scheme: Scheme, reason: str) -> UserError:
    return UserError(
        f"{NAME} is {scheme}, and {reason}; change it, {OPTIONS} or the number of SuperNodes "
        f"({WHERE})."
    )
