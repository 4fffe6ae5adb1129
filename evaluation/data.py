"""Rows of an evaluation set: from the hub, from a folder of JSONL files, or from the small sample
in this package.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.sets import EvalSet, Hub, Rows
from flowertune.base.errors import UserError
from flowertune.base.files import json_objects
from flowertune.base.hashing import file_sha256, json_sha256

SAMPLES = Path(__file__).parent / "samples"


@dataclass(frozen=True)
class Source:
    """Where rows come from: kind "hub", "folder" or "sample", and the folder of the last two."""

    kind: str
    folder: Path | None = None


@dataclass(frozen=True)
class Documents:
    """The documents of one set that are scored, in order.

    Attributes:
        documents: {"context", "target", ...} each.
        origin: what to write into the result about where they came from.
        full: whether this is the whole official set, as far as its row counts can tell.
        sha256: over the documents.
    """

    documents: list[dict[str, Any]]
    origin: dict[str, Any]
    full: bool
    sha256: str


def load(item: EvalSet, source: Source, rows: int, suite: str = "official") -> Documents:
    """Read a set and prepare its documents.

    A source with the official number of rows goes through the official selection. Any other number
    is scored as it is and is not the full set; from the hub it is an error, because there it means
    that the data have changed.

    Args:
        item: the set.
        source: where to read it.
        rows: the official number of scored rows.
        suite: whose form the documents get.

    Raises:
        UserError: the rows cannot be read, lack a column, or are not as many as the hub's
            should be.
    """
    if source.folder is None:
        raw, origin = item.packaged() or _from_hub(item.hub)
    else:
        raw, origin = _from_folder(item, source)
    _check_columns(item, raw, origin)
    whole = len(raw) == item.whole and source.kind != "sample"
    selected = whole or (item.pick_always and source.kind == "folder")
    picked = item.pick(raw) if selected else raw
    full = selected and len(picked) == rows
    if not picked:
        raise UserError(
            f"none of the {len(raw)} rows of {origin.get('file', item.hub.path)} belongs to "
            f"{item.name}: give its own rows with --data-dir"
        )
    if source.kind == "hub" and not full:
        raise UserError(
            f"{item.hub.path} has {len(raw)} rows of which {len(picked)} would be scored, but "
            f"{item.name} needs {item.whole} and {rows}: its data have changed; give the right "
            "ones with --data-dir"
        )
    try:
        documents = item.form(suite).documents(picked)
    except UserError:
        raise
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise UserError(
            f"a row of {origin.get('file', item.hub.path)} does not have the values of {item.name} "
            f"({type(error).__name__}: {error}): the rows must be as on the hub, {item.hub.path}"
        ) from None
    facts = {**origin, "source-rows": len(raw)}
    return Documents(documents, facts, full, json_sha256(documents))


def _from_folder(item: EvalSet, source: Source) -> tuple[Rows, dict[str, Any]]:
    assert source.folder is not None
    path, reader = source.folder / item.file, read_jsonl
    for name, other in item.other_files.items():
        if not path.exists() and (source.folder / name).exists():
            path, reader = source.folder / name, other
    origin = {"source": source.kind, "file": path.name}
    rows = reader(path)
    return rows, {**origin, "sha256": file_sha256(path)}


def read_jsonl(path: Path) -> Rows:
    """Read one JSON object a line.

    Raises:
        UserError: no such file, no rows, or a line that is no JSON object.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            rows = list(json_objects(lines))
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): --data-dir needs one file <set>.jsonl for "
            "each set"
        ) from None
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read ({error}): write one row of the set on each line"
        ) from None
    if not rows:
        raise UserError(f"{path} has no rows: write one row of the set on each line")
    return rows


def _check_columns(item: EvalSet, rows: Rows, origin: dict[str, Any]) -> None:
    for number, row in enumerate(rows, 1):
        missing = [name for name in item.columns if name not in row]
        if missing:
            raise UserError(
                f"row {number} of {origin.get('file', item.hub.path)} has no {', '.join(missing)}: "
                f"{item.name} needs the columns {', '.join(item.columns)}"
            )


def _revision(hub: Hub) -> str | None:
    """The commit to read: the pinned one, else what the branch points at now."""
    # Late: takes a second to import, and rows in a folder do without the hub.
    from huggingface_hub import HfApi, constants

    pinned = hub.revision is not None and re.fullmatch("[0-9a-f]{40}", hub.revision)
    # Offline there is only what an earlier run has left in the cache.
    if pinned or constants.HF_HUB_OFFLINE:
        return hub.revision
    return HfApi().dataset_info(hub.path, revision=hub.revision).sha


def _from_hub(hub: Hub) -> tuple[Rows, dict[str, Any]]:
    # Late, as the hub above.
    import datasets

    try:
        revision = _revision(hub)
        options = {"name": hub.config, "data_dir": hub.data_dir, "revision": revision}
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        parts = [datasets.load_dataset(hub.path, split=split, **given) for split in hub.splits]
    except Exception as error:
        # The hub's clients raise many kinds, all of which mean the same here.
        raise UserError(
            f"the data set {hub.path} cannot be read from the Hugging Face hub "
            f"({type(error).__name__}): "
            "check the network and `hf auth login`, or give the rows with --data-dir, or try "
            "--sample"
        ) from None
    rows = [dict(row) for part in parts for row in part]
    return rows, {
        "source": "hub",
        "path": hub.path,
        "revision": revision,
        "splits": list(hub.splits),
    }
