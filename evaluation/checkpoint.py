"""What a checkpoint says about itself, and whether it is official. No model is loaded here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import challenges
from flowertune.base.errors import UserError
from flowertune.base.files import read_json
from flowertune.base.hashing import file_sha256, json_sha256
from flowertune.rules.lock import Difference, check_library, check_lock, locked_values
from flowertune.rules.manifest import is_sealed
from flowertune.rules.provenance import Library

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """A PEFT adapter on disk.

    Attributes:
        path: its folder.
        base: what `from_pretrained` takes for the base model: a hub id or a folder.
        revision: of the base model, None for its default branch.
        manifest: manifest.json as read, or None if there is none.
        sha256: of the adapter's weights.
        reasons: why it is not official; empty means official.
    """

    path: Path
    base: str
    revision: str | None
    manifest: dict[str, Any] | None
    sha256: str
    reasons: list[str] = field(default_factory=list)

    @property
    def official(self) -> bool:
        """Whether nothing keeps it from being official."""
        return not self.reasons

    @property
    def older_rules(self) -> str | None:
        """The sentence for a checkpoint made under rules that have a newer version, else None."""
        static = (self.manifest or {}).get("static")
        if not isinstance(static, dict) or static.get("rules") not in challenges.rule_sets():
            return None
        rules, version = str(static["rules"]), static.get("rules-version")
        current, *older = challenges.versions(rules)
        if version not in older:
            return None
        return (
            f"Rules: scored under {rules} {version}, which it was trained under; the current "
            f"version is {current}, and results of the two are not compared."
        )


def read(path: Path, challenge: str) -> Checkpoint:
    """Read a checkpoint folder and check its manifest against the locked values of `challenge`.

    Raises:
        UserError: the folder is no PEFT checkpoint or names no base model.
    """
    if not path.is_dir():
        raise UserError(
            f"{path} is no folder: give a checkpoint such as results/<run id>/peft_200, or a "
            "model with --model"
        )
    config = read_json(path / "adapter_config.json")
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if config is None or weights is None:
        missing = "a readable adapter_config.json" if config is None else WEIGHTS[0]
        raise UserError(
            f"{path} is no checkpoint, it has no {missing}: give a folder peft_<round> that a run "
            "has saved"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise UserError(f"{path / 'adapter_config.json'} names no base model: name it with --model")
    sha256 = file_sha256(weights)
    manifest = read_json(path / "manifest.json")
    if manifest is None:
        exists = (path / "manifest.json").exists()
        reasons = ["its manifest.json is not readable" if exists else "it has no manifest.json"]
    else:
        reasons = unofficial_reasons(manifest, challenge, sha256)
    revision = config.get("revision") or ((manifest or {}).get("base-model") or {}).get("revision")
    return Checkpoint(path, base, revision, manifest, sha256, reasons)


def unofficial_reasons(manifest: dict[str, Any], challenge: str, adapter_sha256: str) -> list[str]:
    """Return what keeps a checkpoint from being official, one phrase each; none means official.

    Locked values and the digests of released libraries come from `challenges`, never from the
    manifest. What the manifest says of the run is a claim: it shows an honest mistake, and whoever
    doubts it can train again with the library it names. It cannot stop somebody who makes it up.
    """
    if not is_sealed(manifest):
        return ["its manifest was edited after the run (the checksum in it does not fit)"]
    reasons = []
    if manifest.get("adapter-sha256") != adapter_sha256:
        reasons.append("its weights are not the ones the manifest was written for")
    static = manifest.get("static")
    if not isinstance(static, dict):
        return [*reasons, "its manifest has no static values"]
    if static.get("challenge") != challenge:
        return [*reasons, f"it was trained for {static.get('challenge')}, not for {challenge}"]
    differences = [
        *_from_lock(manifest, static),
        *_from_library(manifest),
        *_over_budget(manifest, static),
    ]
    keys = {difference.key for difference in differences}
    # What only the run could see, such as rows that it loaded itself.
    claimed = [difference for difference in _claimed(manifest) if difference.key not in keys]
    reasons += map(str, [*differences, *claimed])
    if manifest.get("official") is not True and not reasons:
        reasons.append("its own manifest says unofficial")
    return reasons


def _from_lock(manifest: dict[str, Any], static: dict[str, Any]) -> Sequence[Difference]:
    nodes, partitions = (manifest.get(key) for key in ("supernodes", "partitions"))
    return check_lock(
        static,
        nodes if isinstance(nodes, int) else 0,
        {partitions} if isinstance(partitions, int) else set(),
        {json_sha256(static)},
    )


def _from_library(manifest: dict[str, Any]) -> Sequence[Difference]:
    try:
        library = Library.of(manifest.get("library"))
    except (KeyError, TypeError):
        return [Difference("the library", None, "named by its version and digest")]
    return check_library(library, [])


def _over_budget(manifest: dict[str, Any], static: dict[str, Any]) -> Sequence[Difference]:
    communication = manifest.get("communication")
    spent = communication.get("total-mib") if isinstance(communication, dict) else None
    budget = locked_values(static).get("budget-mib", 0)
    if not budget or (isinstance(spent, (int, float)) and spent <= budget):
        return []
    return [Difference("MiB communicated", spent, budget)]


def _claimed(manifest: dict[str, Any]) -> list[Difference]:
    listed = manifest.get("differences")
    return [
        Difference(str(entry.get("key")), entry.get("given"), entry.get("locked"))
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict)
    ]
