"""What a bundle says of its run, as far as a replay needs it; everything typed and bounded."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.untrusted import UnusableFile, strict_json
from flowertune.config.checks import whole_models
from flowertune.rules.manifest import list_of, object_with
from flowertune.rules.values import TEXT, Value, is_number, optional, whole
from flowertune.run import chain
from submissions import layout
from submissions.archive import OpenedBundle

_PLAIN = Value(
    "texts and numbers",
    lambda v: type(v) is bool or is_number(v) or (isinstance(v, str) and len(v) <= 65_536),
)
_NUMBER = Value("a number", is_number)
_SETTINGS = object_with(of=_PLAIN)
_LINE = object_with(
    round=whole(1),
    partitions=list_of(whole()),
    lost=object_with(),
    **{"train-loss": _NUMBER, "learning-rate": optional(_NUMBER)},
)
_ENTRY = object_with(round=whole(), partition=optional(whole()), direction=TEXT, bytes=whole())
_ID = Value("a number of Flower's", lambda v: isinstance(v, str) and v.isdecimal() and len(v) < 21)


@dataclass(frozen=True)
class RunRecord:
    """A run as its bundle has it.

    Attributes
    ----------
    settings
        By their keys, as the run began with them.
    run_ids
        Flower's, of every process that worked on the run.
    supernodes, partitions
        How many took part, and of how many.
    lines, records
        Of each finished round: its line in rounds.jsonl, its record in the chain (round 0, too).
    sent, received
        Bytes in each round, by partition.
    rows
        What each partition says that it loaded.
    checkpoint
        The round of the checkpoint.
    hardware
        Of the machine that trained; empty where the run does not say.
    versions
        Of the packages that decide a result.
    library
        Version and digest of the library.
    app
        sha256 of each file of the app, by its name.
    private
        Whether noise was added that follows from a secret key.
    """

    settings: dict[str, Any]
    run_ids: list[str]
    supernodes: int
    partitions: int
    lines: dict[int, dict[str, Any]]
    records: dict[int, dict[str, Any]]
    sent: dict[int, dict[int, int]]
    received: dict[int, dict[int, int]]
    rows: dict[str, Any]
    checkpoint: int
    hardware: dict[str, Any]
    versions: dict[str, Any]
    library: dict[str, Any]
    app: dict[str, str]
    private: bool = False

    @property
    def rounds(self) -> int:
        """How many rounds are finished."""
        return max(self.lines)

    @property
    def resumed(self) -> bool:
        """Whether more than one process worked on the run."""
        return len(self.run_ids) > 1


def read_record(bundle: OpenedBundle) -> RunRecord:
    """Return what a bundle says of its run.

    Raises
    ------
    UserError
        Something is missing, malformed, or no run that trains adapters.
    """
    manifest = _json(bundle, layout.MANIFEST)
    run = _json(bundle, layout.RUN_INFO)
    settings = _field(manifest, "settings", _SETTINGS, layout.MANIFEST)
    if whole_models(settings):
        raise UserError(
            "The run averages whole models and trains nothing, so no round is replayed."
        )
    lines = {line["round"]: line for line in _lines(bundle, layout.ROUNDS, _LINE)}
    if not lines or sorted(lines) != list(range(1, len(lines) + 1)):
        raise UserError(f"{layout.ROUNDS} does not hold the rounds from 1 to the last one.")
    records = _chain(bundle)
    if records.keys() != {0, *lines}:
        raise UserError(f"{layout.CHAIN} and {layout.ROUNDS} are not of the same rounds.")
    sent: dict[int, dict[int, int]] = {}
    received: dict[int, dict[int, int]] = {}
    for entry in _lines(bundle, layout.LEDGER, _ENTRY):
        if entry["partition"] is None:
            continue
        side = sent if entry["direction"] == "sent" else received
        by_partition = side.setdefault(entry["round"], {})
        by_partition[entry["partition"]] = entry["bytes"]  # of the last try
    app = manifest.get("app") if isinstance(manifest.get("app"), dict) else {}
    files = app.get("files") if isinstance(app, dict) else None
    return RunRecord(
        settings,
        _field(run, "flwr-run-ids", list_of(_ID), layout.RUN_INFO),
        _field(manifest, "supernodes", whole(1), layout.MANIFEST),
        _field(manifest, "partitions", whole(1), layout.MANIFEST),
        lines,
        records,
        sent,
        received,
        _field(manifest, "rows", object_with(), layout.MANIFEST),
        _field(manifest, "round", whole(1), layout.MANIFEST),
        _object(run, "hardware"),
        _object(manifest, "versions"),
        _object(manifest, "library"),
        {str(k): str(v) for k, v in (files or {}).items()} if isinstance(files, dict) else {},
        manifest.get("privacy") is not None,
    )


def _chain(bundle: OpenedBundle) -> dict[int, dict[str, Any]]:
    """Return the record of each round; of one that was saved twice, the last."""
    records: list[dict[str, Any]] = []
    before = chain.FIRST
    try:
        for number, raw in enumerate(bundle.raw_lines(layout.CHAIN), 1):
            record = strict_json(raw)
            if not chain.RECORD.fits(record) or record[chain.PREVIOUS] != before:
                raise UserError(
                    f"Line {number} of {layout.CHAIN} does not follow the line before it: the "
                    "chain was edited, or lines are missing."
                )
            before = hashlib.sha256(raw).hexdigest()
            records.append(record)
    except UnusableFile as error:
        raise UserError(f"{layout.CHAIN} {error}.") from None
    if problem := chain.problem(records):
        raise UserError(f"{layout.CHAIN} cannot be used: {problem}.")
    return {record[chain.ROUND]: record for record in records}


def _json(bundle: OpenedBundle, name: str) -> dict[str, Any]:
    try:
        return bundle.json(name)
    except UnusableFile as error:
        raise UserError(f"{name} {error}.") from None


def _lines(bundle: OpenedBundle, name: str, shape: Value) -> list[dict[str, Any]]:
    found = []
    try:
        for number, line in enumerate(bundle.lines(name), 1):
            if not shape.fits(line):
                raise UserError(f"Line {number} of {name} is no line that a run writes.")
            found.append(line)
    except UnusableFile as error:
        raise UserError(f"{name} {error}.") from None
    return found


def _field(body: Mapping[str, Any], key: str, shape: Value, where: str) -> Any:
    if not shape.fits(body.get(key)):
        raise UserError(f"{where} has no {key!r} that can be used; it has to be {shape.allowed}.")
    return body[key]


def _object(body: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key)
    return dict(value) if isinstance(value, dict) else {}
