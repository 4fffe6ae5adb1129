"""From ``static.dataset.name`` to rows, and to the partition of one client."""

import glob
import json
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import Any

from datasets import Dataset, DatasetDict, Json, load_dataset, load_from_disk
from datasets import config as datasets_config

from flowertune.base import hub
from flowertune.base.errors import UserError
from flowertune.base.files import json_objects
from flowertune.base.text import is_utf8, one_line
from flowertune.base.untrusted import HALF_A_PAIR, UnusableFile, unique_keys
from flowertune.config.paths import is_path, local_path
from flowertune.config.settings import WHERE

SETTING = "static.dataset.name"
SPLIT = "train"
SHUFFLE_SEED = 42  # FederatedDataset's own default, so that local copies are cut in the same way
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
    if is_local(name):
        return _local_rows(name, local_path(name, app_dir))
    _expect_hub(name, revision)
    try:
        return _as_dataset(name, load_dataset(name, revision=revision))
    except UserError:
        raise
    except Exception as error:  # datasets and the HTTP library raise many kinds
        raise hub.refusal(SETTING, name, revision, hub.why_not(error), OFFLINE) from error


@lru_cache(maxsize=64)
def load_partition(
    name: str, revision: str, app_dir: Path, num_partitions: int, partition_id: int
) -> Dataset:
    """Return the rows of one of ``num_partitions`` IID partitions; cached by its arguments.

    Rows are shuffled with a fixed seed and cut into runs of equal length (give or take a row), by
    flwr-datasets; a local copy of a hub dataset is cut in the same way.

    Raises
    ------
    UserError
        If the rows cannot be had, or there are fewer rows than partitions.
    """
    rows = _shuffled_rows(name, revision, app_dir, num_partitions)
    # As IidPartitioner of flwr-datasets does.
    return rows.shard(num_shards=num_partitions, index=partition_id, contiguous=True)


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
    cached = Path(datasets_config.HF_DATASETS_CACHE) / name.replace("/", "___")
    if not cached.is_dir() and not hub.reachable():
        raise hub.refusal(SETTING, name, revision, hub.NO_ANSWER, OFFLINE)


def _local_rows(name: str, path: Path) -> Dataset:
    try:
        if not path.exists():
            raise _refusal(name, f"there is no file or folder {path}")
        if not path.is_file() and not path.is_dir():
            raise _refusal(name, f"{path} is neither a file nor a folder")
        if path.is_file():
            rows = _read_file(path)
        elif (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            rows = load_from_disk(str(path))
        else:
            rows = load_dataset(str(path))
    except UserError:
        raise
    except Exception as error:  # readers of many formats raise many kinds
        raise _refusal(name, f"{path} cannot be read ({one_line(error)})") from error
    return _as_dataset(name, rows)


def _read_file(path: Path) -> Any:
    _check_lines(path)
    # datasets takes a path for a pattern
    rows = Dataset.from_json(glob.escape(str(path)))
    kinds: dict[str, Any] = dict(rows.features)
    mixed = [name for name, kind in kinds.items() if isinstance(kind, Json)]
    if not mixed:
        return rows
    # datasets reads the text "5" of a column that holds other types, too, as the number 5.
    with path.open(encoding="utf-8-sig") as lines:
        values = [[row.get(name) for name in mixed] for row in json_objects(lines)]
    for name, column in zip(mixed, zip(*values, strict=True), strict=True):
        as_json = [json.dumps(value) for value in column]
        rows = rows.remove_columns(name).add_column(name, as_json, feature=kinds[name])
    return rows


def _check_lines(path: Path) -> None:
    """Name the line that is no JSON object: the reader's own error names none."""
    read = rows = 0
    with path.open(encoding="utf-8-sig") as lines:
        try:
            for line in lines:
                read += 1
                rows += _check_line(line)
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise _refusal(str(path), f"it is not in UTF-8 (byte {wrong:#04x})") from None
        except (ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, UnusableFile) else "is not a JSON object"
            raise _refusal(str(path), f"line {read} {said}") from None
    if not rows:
        raise _refusal(str(path), "it holds no rows")


def _check_line(line: str) -> bool:
    """Whether a line holds a row; a blank one holds none."""
    if not line.strip():
        return False
    row = json.loads(line, object_pairs_hook=unique_keys)
    if not isinstance(row, dict):
        raise UnusableFile("is not a JSON object")
    # Only an escape can stand for half a surrogate pair in UTF-8.
    if "\\ud" in line.lower() and not is_utf8(json.dumps(row, ensure_ascii=False)):
        raise UnusableFile(HALF_A_PAIR)
    return True


def _as_dataset(name: str, rows: Any) -> Dataset:
    if isinstance(rows, DatasetDict):
        if SPLIT not in rows and len(rows) > 1:
            raise _refusal(
                name, f"it has the splits {', '.join(map(str, rows))} and none named {SPLIT}"
            )
        rows = rows[SPLIT] if SPLIT in rows else next(iter(rows.values()))
    return rows


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
