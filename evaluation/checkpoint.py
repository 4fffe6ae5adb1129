"""What a checkpoint says about itself, and whether it may be called official. Nothing here loads a
model.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import challenges
from evaluation.errors import EvaluationError

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
        EvaluationError: the folder is no PEFT checkpoint or names no base model.
    """
    if not path.is_dir():
        raise EvaluationError(
            f"{path} is no folder: give a checkpoint such as results/<run id>/peft_200, or a "
            "model with --model"
        )
    config = _json_object(path / "adapter_config.json")
    weights = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if config is None or weights is None:
        missing = "a readable adapter_config.json" if config is None else WEIGHTS[0]
        raise EvaluationError(
            f"{path} is no checkpoint, it has no {missing}: give a folder peft_<round> that a run "
            "has saved"
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise EvaluationError(
            f"{path / 'adapter_config.json'} names no base model: name it with --model"
        )
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest = _json_object(path / "manifest.json")
    if manifest is None:
        exists = (path / "manifest.json").exists()
        reasons = ["its manifest.json is not readable" if exists else "it has no manifest.json"]
    else:
        reasons = unofficial_reasons(manifest, challenge, sha256)
    revision = config.get("revision") or ((manifest or {}).get("base-model") or {}).get("revision")
    return Checkpoint(path, base, revision, manifest, sha256, reasons)


def unofficial_reasons(manifest: dict[str, Any], challenge: str, adapter_sha256: str) -> list[str]:
    """What keeps a checkpoint from being official, one phrase each; empty means official.

    The locked values come from `challenges`, never from the manifest. The checksums in it show an
    accident; they cannot stop somebody who forges all of them.
    """
    content = {key: value for key, value in manifest.items() if key != "manifest-sha256"}
    if manifest.get("manifest-sha256") != challenges.digest(content):
        return ["its manifest was edited after the run (the checksum in it does not fit)"]
    reasons = []
    if manifest.get("adapter-sha256") != adapter_sha256:
        reasons.append("its weights are not the ones the manifest was written for")
    static = manifest.get("static")
    if not isinstance(static, dict):
        return [*reasons, "its manifest has no static values"]
    if static.get("challenge") != challenge:
        return [*reasons, f"it was trained for {static.get('challenge')}, not for {challenge}"]
    if static.get("rules") not in challenges.rule_sets():
        return [
            *reasons,
            f"its rules are {static.get('rules')!r}, known are {', '.join(challenges.rule_sets())}",
        ]
    locked = _locked(challenge, static)
    for key in sorted(locked.keys() | static.keys()):
        if static.get(key) != locked.get(key):
            reasons.append(f"static.{key} is {static.get(key)!r}, locked is {locked.get(key)!r}")
    for key in ("supernodes", "partitions"):
        if locked["num-supernodes"] and manifest.get(key) != locked["num-supernodes"]:
            reasons.append(
                f"it ran with {manifest.get(key)} {key}, locked are {locked['num-supernodes']}"
            )
    communication = manifest.get("communication")
    spent = communication.get("total-mib", 0) if isinstance(communication, dict) else 0
    if spent > int(locked["budget-mib"]):
        reasons.append(
            f"it communicated {spent:,.0f} MiB, the budget is {locked['budget-mib']:,} MiB"
        )
    if manifest.get("protected-changed"):
        reasons.append(f"protected files were changed: {', '.join(manifest['protected-changed'])}")
    if manifest.get("official") is not True and not reasons:
        reasons.append("its own manifest says unofficial")
    return reasons


def _locked(challenge: str, static: dict[str, Any]) -> dict[str, Any]:
    """The locked values of the version of the rules a checkpoint names, if there was such a one."""
    rules, version = static["rules"], static.get("rules-version")
    known = version in challenges.versions(rules)
    if known and challenge in challenges.published(rules, str(version)):
        return challenges.static_table(challenge, rules, version)
    return challenges.static_table(challenge, rules)


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
