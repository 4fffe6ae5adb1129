"""Rows of an evaluation set: from the hub, from a folder of JSONL files, or from the small sample
in this package.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import challenges
from challenges import record
from evaluation.columns import core, problem
from evaluation.sets import EvalSet, Hub, Rows
from evaluation.text_files import read_jsonl
from flowertune.base.errors import UserError
from flowertune.base.hashing import file_sha256, json_sha256

SAMPLES = Path(__file__).parent / "samples"
OFFICIAL, UNVERIFIED = "official", "unverified"


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
        status: "official"; "unverified" for rows that went through the official selection but are
            not on record; "partial" for any other number of rows.
        sha256: over the documents.
        rows_sha256: over the columns of the rows they were made of, whatever the suite.
        texts: of each row, what training rows are compared with (`EvalSet.texts`).
    """

    documents: list[dict[str, Any]]
    origin: dict[str, Any]
    status: str
    sha256: str
    rows_sha256: str
    texts: list[tuple[str, ...]]

    @property
    def full(self) -> bool:
        """Whether this is the whole official set."""
        return self.status == OFFICIAL


def load(
    item: EvalSet,
    source: Source,
    rows: int,
    suite: str = "official",
    known_sha256: str | None = None,
    revision: str | None = None,
) -> Documents:
    """Read a set and prepare its documents.

    A source with the official number of rows goes through the official selection. Any other number
    is scored as it is and is not the full set; from the hub it is an error, because there it means
    that the data have changed. Rows in a folder are official only if their hash is on record.

    Args:
        item: the set.
        source: where to read it.
        rows: the official number of scored rows.
        suite: whose form the documents get.
        known_sha256: what the rules have on record as `rows_sha256` of the set, None if nothing.
        revision: the commit of the hub that the rules pin, None for the set's own revision.

    Raises:
        UserError: the rows cannot be read, lack a column, hold a value that is not allowed, or are
            not those that the hub should have.
    """
    if source.folder is None:
        raw, origin = item.packaged() or _from_hub(
            replace(item.hub, revision=revision or item.hub.revision)
        )
    else:
        raw, origin = _from_folder(item, source)
    name = origin.get("file", item.hub.path)
    check_rows(item, raw, name)
    whole = len(raw) == item.whole and source.kind != "sample"
    selected = whole or (item.pick_always and source.kind == "folder")
    picked = item.pick(raw) if selected else raw
    if not picked:
        raise UserError(
            f"none of the {len(raw)} rows of {name} belongs to {item.name}: give its own rows with "
            "--data-dir"
        )
    complete = selected and len(picked) == rows
    if source.kind == "hub" and not complete:
        raise UserError(
            f"{item.hub.path} has {len(raw)} rows of which {len(picked)} would be scored, but "
            f"{item.name} needs {item.whole} and {rows}: its data have changed; give the right "
            "ones with --data-dir"
        )
    rows_sha256 = json_sha256([core(item.columns, row) for row in picked])
    if source.kind == "hub" and known_sha256 not in (None, rows_sha256):
        raise UserError(
            f"the rows of {item.hub.path} are not those that the rules have on record for "
            f"{item.name} (sha256 {rows_sha256[:12]}, on record {str(known_sha256)[:12]}): empty "
            "the hub's cache, or give the right ones with --data-dir"
        )
    status = "partial"
    if complete:
        verified = source.kind == "hub" or rows_sha256 == known_sha256
        status = OFFICIAL if verified else UNVERIFIED
    documents = item.form(suite).documents(picked)
    facts = {**origin, "source-rows": len(raw), "on-record": rows_sha256 == known_sha256}
    texts = [item.texts(row) for row in picked]
    return Documents(documents, facts, status, json_sha256(documents), rows_sha256, texts)


def on_record(challenge: str, rules: tuple[str, str] | None) -> dict[str, str]:
    """Return the hashes of a challenge's sets that are on record, by set.

    Args:
        challenge: its name.
        rules: name and version of the rules a checkpoint was made under; without them, what the
            current version of any rule set has.
    """
    current = [(name, challenges.versions(name)[0]) for name in challenges.rule_sets()]
    hashes: dict[str, str] = {}
    for name, version in [rules] if rules else current:
        hashes |= record.evaluation_data(name, version).get(challenge, {})
    return hashes


def pinned_revisions(challenge: str, rules: tuple[str, str] | None) -> dict[str, str]:
    """Return the commits that rules pin for a challenge's sets, by set; as for `on_record`."""
    current = [(name, challenges.versions(name)[0]) for name in challenges.rule_sets()]
    commits: dict[str, str] = {}
    for name, version in [rules] if rules else current:
        pins = record.pinned(name, version).get(challenge, {}).get("evaluation", {})
        commits |= {item: about["revision"] for item, about in pins.items()}
    return commits


def check_rows(item: EvalSet, rows: Rows, name: str) -> None:
    """Refuse rows out of which no document, or a wrong one, would be made.

    Args:
        item: the set.
        rows: as they were read.
        name: of their file or data set.

    Raises:
        UserError: names the first such row, and its value.
    """
    for number, row in enumerate(rows, 1):
        wrong = problem(item.columns, row) or item.check(row)
        more = [column for column in item.no_columns if row.get(column) is not None]
        if more and not wrong:
            wrong = f"has a further answer, {more[0]}, which the set does not have"
        if wrong:
            raise UserError(
                f"row {number} of {name} {wrong}: the rows of {item.name} must be as on the hub, "
                f"{item.hub.path}"
            )


def _from_folder(item: EvalSet, source: Source) -> tuple[Rows, dict[str, Any]]:
    assert source.folder is not None
    path, reader = source.folder / item.file, read_jsonl
    for name, other in item.other_files.items():
        if not path.exists() and (source.folder / name).exists():
            path, reader = source.folder / name, other
    origin = {"source": source.kind, "file": path.name}
    rows = reader(path)
    return rows, {**origin, "sha256": file_sha256(path)}


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

    # `datasets` prefers a local folder of that name.
    if Path(hub.path).exists():
        raise UserError(
            f"{hub.path} in this folder would be read in place of the data set {hub.path} of the "
            "Hugging Face hub: run the command in another folder, or give the rows with --data-dir"
        )
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
