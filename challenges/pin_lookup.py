"""What the hub has of a challenge's data and default base model: commits, files, rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import challenges
from flowertune.base import hub
from flowertune.base.errors import UserError


@dataclass
class Pins:
    """What was looked up of one challenge.

    Attributes:
        pinned: as `challenges.record.pinned` has it.
        rows: sha256 of the rows of each evaluation set, as the scorer computes it.
        problems: what could not be had, one clause each.
    """

    pinned: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def look_up(challenge: str, supernodes: Sequence[int]) -> Pins:
    """Look up everything of one challenge.

    Args:
        challenge: its name.
        supernodes: the numbers of partitions whose fingerprints are wanted.
    """
    facts, pins = challenges.load(challenge), Pins()
    parts: list[tuple[str, Any]] = [
        ("training", lambda: _training(facts["dataset"], supernodes)),
        ("evaluation", lambda: _evaluation(challenge, facts["evaluation"]["sets"], pins.rows)),
        ("model", lambda: _model(facts["model"])),
    ]
    for name, part in parts:
        try:
            pins.pinned[name] = part()
        except UserError as error:
            pins.problems.append(str(error).rstrip("."))
    return pins


def _training(dataset: Mapping[str, Any], supernodes: Sequence[int]) -> dict[str, Any]:
    # Late: datasets takes a second to import.
    from flowertune.data.fingerprint import Fingerprint
    from flowertune.data.rows import each_row, load_partition, load_rows

    name = dataset["name"]
    about = _repository("dataset", name, None)
    commit = about["revision"]
    whole, partitions = Fingerprint(), {}
    for row in each_row(load_rows(name, commit, Path())):
        whole.add(row)
    for count in sorted(set(supernodes) - {0}):
        made = []
        for number in range(count):
            one = Fingerprint()
            for row in load_partition(name, commit, Path(), count, number).to_list():
                one.add(row)
            made.append(one.sha256)
        partitions[str(count)] = made
    return {
        **about,
        "rows": whole.rows,
        "unique-rows": whole.unique_rows,
        "sha256": whole.sha256,
        "partitions": partitions,
    }


def _evaluation(
    challenge: str, entries: Sequence[Mapping[str, Any]], rows: dict[str, str]
) -> dict[str, Any]:
    # Late: the base example has no sets, and so no module.
    from evaluation import data, sets

    made = {}
    named = sets.of_challenge(challenge).named() if entries else {}
    for entry in entries:
        item = named[entry["set"]]
        about = _repository("dataset", item.hub.path, item.hub.revision)
        # What an installed package holds is not what is pinned.
        of_hub = replace(item, packaged=lambda: None)
        found = data.load(of_hub, data.Source("hub"), entry["rows"], revision=about["revision"])
        within = [part for part in (item.hub.data_dir, item.hub.config) if part]
        made[item.name] = {
            **about,
            "files": _of_part(about["files"], within),
            "rows": len(found.documents),
            "documents-sha256": found.sha256,
        }
        rows[item.name] = found.rows_sha256
    return made


def _model(name: str) -> dict[str, Any]:
    return _repository("model", name, None)


def _of_part(files: dict[str, Any], within: Sequence[str]) -> dict[str, Any]:
    """The files of one configuration, where their paths tell; else all."""
    for part in within:
        chosen = {path: about for path, about in files.items() if part in path}
        if chosen:
            return chosen
    return files


def _repository(kind: str, name: str, revision: str | None) -> dict[str, Any]:
    """Return name, commit and files of a repository of the hub.

    Raises:
        UserError: it cannot be had, or the hub does not say what its files are.
    """
    # Late: huggingface_hub takes a part of a second to import.
    from huggingface_hub import HfApi

    try:
        about = HfApi().repo_info(
            name, repo_type=kind, revision=revision, files_metadata=True, timeout=60
        )
    except Exception as error:  # the HTTP library raises many kinds
        raise UserError(f"the {kind} {name}: {hub.why_not(error)}") from None
    files, unknown = {}, []
    for one in getattr(about, "siblings", None) or []:
        if one.lfs is not None:
            files[one.rfilename] = {"bytes": one.lfs.size, "sha256": one.lfs.sha256}
        elif one.blob_id is not None:
            files[one.rfilename] = {"bytes": one.size, "git-sha1": one.blob_id}
        else:
            unknown.append(one.rfilename)
    if about.sha is None or unknown or not files:
        raise UserError(f"the {kind} {name}: the hub does not say which commit and files it has")
    return {"name": name, "revision": about.sha, "files": files}
