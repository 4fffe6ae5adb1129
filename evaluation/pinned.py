"""Whether what a score loaded is what the rules pin: rows of both kinds, and the base model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import challenges
from challenges import record
from evaluation.base_model import BaseModel
from evaluation.data import Documents
from flowertune.models.pinned_files import other_files
from flowertune.models.resolve import folder_of
from flowertune.rules.pinned import OTHER, UNVERIFIED, VERIFIED


def pins_of(challenge: str, rules: tuple[str, str] | None) -> dict[str, Any]:
    """Return what rules pin for a challenge; without any, what the current rules pin."""
    current = [(name, challenges.versions(name)[0]) for name in challenges.rule_sets()]
    pins: dict[str, Any] = {}
    for name, version in [rules] if rules else current:
        pins |= record.pinned(name, version).get(challenge, {})
    return pins


def statuses(
    pins: Mapping[str, Any],
    documents: Mapping[str, Documents],
    on_record: Mapping[str, str],
    base: BaseModel,
    commit: str | None,
    contamination: Mapping[str, Any],
    trained_on: str,
) -> dict[str, Any]:
    """Return "verified", "other" or "unverified" (nothing is pinned) for all that was loaded.

    Args:
        pins: what the rules pin for the challenge.
        documents: of each set that was scored.
        on_record: sha256 of the rows of each set, as far as the rules have it.
        base: the base model.
        commit: of the hub that it was read from, if it was.
        contamination: the report on the training rows that were compared with the sets.
        trained_on: what is known of the rows that the checkpoint says it was trained on.
    """
    compared = contamination.get("training", {}).get("sha256")
    rows = pins.get("training", {}).get("sha256")
    return {
        "evaluation-rows": {
            name: _status(one.rows_sha256, on_record.get(name)) for name, one in documents.items()
        },
        "rows-trained-on": trained_on,
        "rows-compared": UNVERIFIED if compared is None else _status(compared, rows),
        **_model(pins.get("model"), base, commit),
    }


def sentences(found: Mapping[str, Any], rules: Mapping[str, Any]) -> list[str]:
    """Return what to say under the table of an official checkpoint, one sentence each.

    Args:
        found: the statuses.
        rules: name and version of its rules.
    """
    parts = {
        "rows trained on": found["rows-trained-on"],
        **{f"rows of {name}": status for name, status in found["evaluation-rows"].items()},
        "base model": found["base-model"],
    }
    named = f"{rules['name']} {rules['version']}"
    if set(parts.values()) == {VERIFIED}:
        return [f"Rows and base model are those that the rules {named} pin."]
    by_status = {
        status: ", ".join(name for name, of in parts.items() if of == status)
        for status in (OTHER, UNVERIFIED)
    }
    made = []
    if by_status[OTHER]:
        made.append(f"Other than the rules {named} pin: {by_status[OTHER]}.")
    if by_status[UNVERIFIED]:
        made.append(f"Unverified, since the rules {named} pin none: {by_status[UNVERIFIED]}.")
    return made


def _status(found: str, pinned: str | None) -> str:
    if pinned is None:
        return UNVERIFIED
    return VERIFIED if found == pinned else OTHER


def _model(model: Mapping[str, Any] | None, base: BaseModel, commit: str | None) -> dict[str, Any]:
    if model is None:
        return {"base-model": UNVERIFIED}
    folder = folder_of(base.name)
    if folder is None:
        if (base.name, commit) != (model["name"], model["revision"]):
            return {"base-model": OTHER}
        folder = _snapshot(base.name, commit)
    if folder is None:
        return {"base-model": UNVERIFIED}
    wrong = other_files(folder, model["files"])
    return {"base-model": OTHER, "other-files": wrong[:10]} if wrong else {"base-model": VERIFIED}


def _snapshot(name: str, commit: str | None) -> Path | None:
    # Late: huggingface_hub takes a part of a second to import.
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=commit)
    return Path(found).parent if isinstance(found, str) else None
