"""From ``static.dataset.name`` to rows, and to the partition of one client."""

from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

from datasets import Dataset, load_dataset
from datasets import config as datasets_config

from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.config.partitioners import EVENLY, Scheme
from flowertune.config.paths import is_path, local_path
from flowertune.config.settings import IID, WHERE
from flowertune.data.partition import dealt
from flowertune.data.read import SPLIT, UnusableRows, one_split, read_rows

SETTING = "static.dataset.name"
SHUFFLE_SEED = 42  # FederatedDataset's own default, so that local copies are cut in the same way
_CHUNK = 1000
OFFLINE = "a local folder or a .jsonl file with the same columns works"


def is_local(name: str) -> bool:
    """Whether a dataset's name is a path and not a hub id."""
    return is_path(name) or name.endswith(".jsonl")


def load_rows(name: str, revision: str, app_dir: Path) -> Dataset:
    """Load all rows of a hub id, a folder, or a JSONL file, in their own order.

    A folder holds what ``Dataset.save_to_disk`` wrote, or files that ``datasets`` reads (JSONL,
    Parquet, CSV …). Of several splits, "train" is taken. A relative path starts at the app.

    Raises
    ------
    UserError
        If the rows cannot be had; says why.
    """
    try:
        if is_local(name):
            return read_rows(local_path(name, app_dir))
        _expect_hub(name, revision)
        return one_split(load_dataset(name, revision=revision))
    except UnusableRows as error:
        raise _refusal(name, str(error)) from error.__cause__
    except UserError:
        raise
    except Exception as error:  # datasets and the HTTP library raise many kinds
        raise hub.refusal(SETTING, name, revision, hub.why_not(error), OFFLINE) from error


def each_row(rows: Dataset) -> Iterator[dict[str, Any]]:
    """Yield the rows of a dataset; a part of them at a time is made objects of Python."""
    for start in range(0, len(rows), _CHUNK):
        yield from rows.select(range(start, min(start + _CHUNK, len(rows)))).to_list()


def is_cached(name: str) -> bool:
    """Whether rows of a hub id are in the cache of this machine."""
    return (Path(datasets_config.HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir()


@lru_cache(maxsize=64)
def load_partition(
    name: str,
    revision: str,
    app_dir: Path,
    num_partitions: int,
    partition_id: int,
    scheme: Scheme = EVENLY,
) -> Dataset:
    """Return the rows of one of ``num_partitions`` partitions; cached by its arguments.

    Rows are shuffled with a fixed seed and, with IID partitions, cut into runs of equal length
    (give or take a row), by flwr-datasets; so are other ways to deal them out. A local copy of a
    hub dataset is cut in the same way.

    Raises
    ------
    UserError
        If the rows cannot be had, there are fewer rows than partitions, or they cannot be dealt
        out as ``scheme`` says.
    """
    if scheme.name != IID:
        all_of_them = dealt_rows(name, revision, app_dir, num_partitions, scheme)
        return all_of_them.load_partition(partition_id)
    rows = _shuffled_rows(name, revision, app_dir, num_partitions)
    # As IidPartitioner of flwr-datasets does.
    return rows.shard(num_shards=num_partitions, index=partition_id, contiguous=True)


@lru_cache(maxsize=4)
def dealt_rows(name: str, revision: str, app_dir: Path, num_partitions: int, scheme: Scheme) -> Any:
    """Return flwr-datasets' partitioner with all rows dealt out; cached by its arguments.

    Raises
    ------
    UserError
        As ``load_partition``.
    """
    return dealt(_shuffled_rows(name, revision, app_dir, num_partitions), scheme, num_partitions)


def check_columns(columns: Collection[str], question: str, answer: str, prompt: str) -> None:
    """Check that the format strings use columns that the dataset has.

    ``prompt`` may use {question} as well.

    Raises
    ------
    UserError
        If a string is malformed or names a column that is not there; names all at once.
    """
    there = set(columns)
    problems = [
        *_unknown("static.dataset.question", question, there),
        *_unknown("static.dataset.answer", answer, there),
        *_unknown("prompt.template", prompt, there | {"question"}),
    ]
    if problems:
        raise UserError(
            f"{'; '.join(problems)}; the dataset has {', '.join(sorted(there)) or 'no columns'} "
            f"(change it {WHERE})."
        )


def columns_of(*templates: str) -> list[str]:
    """Return what format strings name in braces, sorted."""
    fields = (field for text in templates for _, field, _, _ in Formatter().parse(text))
    return sorted({field for field in fields if field is not None})


@lru_cache(maxsize=4)
def _shuffled_rows(name: str, revision: str, app_dir: Path, num_partitions: int) -> Dataset:
    if is_local(name):
        shuffled = load_rows(name, revision, app_dir).shuffle(seed=SHUFFLE_SEED)
    else:
        shuffled = _hub_rows(name, revision, num_partitions)
    rows = len(shuffled)
    if rows < num_partitions:
        raise UserError(
            f"{SETTING} is {name!r} with {rows} rows, too few for {num_partitions} SuperNodes; "
            "give each at least one row, or set up fewer SuperNodes (flowertune connect "
            f"--num-supernodes {max(rows, 1)})."
        )
    return shuffled


def _hub_rows(name: str, revision: str, num_partitions: int) -> Dataset:
    # Late: it takes a second, most of it for plots, and rows on this machine do without.
    from flwr_datasets import FederatedDataset
    from flwr_datasets.partitioner import IidPartitioner

    _expect_hub(name, revision)
    partitioner = IidPartitioner(num_partitions)
    federated = FederatedDataset(
        dataset=name,
        partitioners={SPLIT: partitioner},
        shuffle=True,
        seed=SHUFFLE_SEED,
        revision=revision,
    )
    try:
        federated.load_partition(0, SPLIT)
    except Exception as error:  # datasets and the HTTP library raise many kinds
        raise hub.refusal(SETTING, name, revision, hub.why_not(error), OFFLINE) from error
    return partitioner.dataset


def _expect_hub(name: str, revision: str) -> None:
    if not hub.is_hub_id(name):
        raise _refusal(name, hub.NO_HUB_ID)
    if not is_cached(name) and not hub.reachable():
        raise hub.refusal(SETTING, name, revision, hub.NO_ANSWER, OFFLINE)


def _refusal(name: str, reason: str) -> UserError:
    return UserError(
        f"{SETTING} is {name!r}, but {reason}; give a hub id, a folder of JSONL, Parquet or CSV "
        "files, or a .jsonl file."
    )


def _unknown(key: str, template: str, there: set[str]) -> list[str]:
    try:
        fields = [field for _, field, _, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        return [f"{key} is malformed ({error})"]
    missing = sorted({field for field in fields if field not in there})
    return [f"{key} uses {{{field}}}, which is no column" for field in missing]
