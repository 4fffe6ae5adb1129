"""Rows out of a file or a folder on this machine."""

import glob
import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Json, load_dataset, load_from_disk

from flowertune.base.errors import UserError
from flowertune.base.files import json_objects
from flowertune.base.text import is_utf8, one_line
from flowertune.base.untrusted import HALF_A_PAIR, UnusableFile, unique_keys

SPLIT = "train"


class UnusableRows(UserError):
    """Rows cannot be read; says why, as a clause."""


def read_rows(path: Path) -> Dataset:
    """Load all rows of a folder or a JSONL file, in their own order.

    A folder holds what ``Dataset.save_to_disk`` wrote, or files that ``datasets`` reads (JSONL,
    Parquet, CSV …). Of several splits, "train" is taken.

    Raises
    ------
    UnusableRows
        If the rows cannot be had.
    """
    try:
        if not path.exists():
            raise UnusableRows(f"there is no file or folder {path}")
        if not path.is_file() and not path.is_dir():
            raise UnusableRows(f"{path} is neither a file nor a folder")
        if path.is_file():
            rows = _read_file(path)
        elif (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
            rows = load_from_disk(str(path))
        else:
            rows = load_dataset(str(path))
    except UnusableRows:
        raise
    except Exception as error:  # readers of many formats raise many kinds
        raise UnusableRows(f"{path} cannot be read ({one_line(error)})") from error
    return one_split(rows)


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
            raise UnusableRows(f"{path} is not in UTF-8 (byte {wrong:#04x})") from None
        except (ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, UnusableFile) else "is not a JSON object"
            raise UnusableRows(f"in {path}, line {read} {said}") from None
    if not rows:
        raise UnusableRows(f"{path} holds no rows")


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


def one_split(rows: Any) -> Dataset:
    """Return what was loaded, or "train" of several splits.

    Raises
    ------
    UnusableRows
        If there are several, and none of that name.
    """
    if isinstance(rows, DatasetDict):
        if SPLIT not in rows and len(rows) > 1:
            names = ", ".join(map(str, rows))
            raise UnusableRows(f"it has the splits {names} and none named {SPLIT}")
        rows = rows[SPLIT] if SPLIT in rows else next(iter(rows.values()))
    return rows
