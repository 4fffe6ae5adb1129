"""What a checkpoint says about itself, and whether it is official. No model is loaded here."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import challenges
from evaluation.submission import Submission, opened, read_manifest
from flowertune.base.errors import UserError
from flowertune.base.hashing import json_sha256
from flowertune.base.text import one_line
from flowertune.rules import adapter_config
from flowertune.rules.checkpoint import CONFIG, saved_checkpoints
from flowertune.rules.lock import Difference, check_library, check_lock, locked_values
from flowertune.rules.manifest import SEAL, is_sealed, problems
from flowertune.rules.pinned import UNVERIFIED, row_differences, rows_status
from flowertune.rules.provenance import Library

_SHOWN = 5  # reasons of a kind


@dataclass(frozen=True)
class Checkpoint:
    """A PEFT adapter that can be loaded while the block that opened it lasts.

    Attributes:
        path: its folder, as the user gave it.
        folder: the private copy, which is what is loaded.
        digest: of the checkpoint.
        base: what its configuration names as base model: a hub id or a folder.
        base_name: what the run called the base model, None without a usable manifest.
        revision: of the base model, None for its default branch.
        rules: the rules it was made under, by name and version, None without a usable manifest.
        sha256: of the adapter's weights.
        manifest_sha256: the manifest's seal, None without a usable manifest.
        rows: whether the rows that it says it was trained on are those that its rules pin.
        reasons: why it is not official; empty means official.
    """

    path: Path
    folder: Path
    digest: str
    base: str
    base_name: str | None
    revision: str | None
    rules: tuple[str, str] | None
    sha256: str
    manifest_sha256: str | None
    rows: str = UNVERIFIED
    reasons: list[str] = field(default_factory=list)

    @property
    def official(self) -> bool:
        """Whether nothing keeps it from being official."""
        return not self.reasons

    @property
    def older_rules(self) -> str | None:
        """The sentence for a checkpoint made under rules that have a newer version, else None."""
        if self.rules is None or self.rules[0] not in challenges.rule_sets():
            return None
        rules, version = self.rules
        current, *older = challenges.versions(rules)
        if version not in older:
            return None
        return (
            f"Rules: scored under {rules} {version}, which it was trained under; the current "
            f"version is {current}, and results of the two are not compared."
        )


@contextmanager
def read(path: Path, challenge: str) -> Iterator[Checkpoint]:
    """Read a checkpoint, and check its manifest against the locked values of `challenge`.

    What is read is a private copy, which is there until the end of the block.

    Raises:
        UserError: the folder is no PEFT checkpoint that can be loaded.
    """
    with opened(path) as submission:
        yield describe(submission, challenge)


def describe(submission: Submission, challenge: str) -> Checkpoint:
    """Return what is known of a checkpoint that has been handed in."""
    manifest = submission.manifest
    # What the manifest says is repeated only if it is well-formed.
    known = {} if manifest is None or problems(manifest) else manifest
    static = known.get("static", {})
    return Checkpoint(
        path=submission.given,
        folder=submission.folder,
        digest=submission.digest,
        base=submission.config["base_model_name_or_path"],
        base_name=known.get("base-model", {}).get("name"),
        revision=submission.config.get("revision"),
        rules=(static["rules"], static["rules-version"]) if static else None,
        sha256=submission.weights_sha256,
        manifest_sha256=known.get(SEAL),
        rows=rows_status(static, known["partitions"], known["rows"]) if known else UNVERIFIED,
        reasons=unofficial_reasons(submission, challenge),
    )


def find(given: Path) -> Path:
    """Return the checkpoint that a path names: itself, or the last one in a run's folder.

    Raises:
        UserError: there is no such folder, or it holds no checkpoint; names those that are there.
    """
    if not given.is_dir():
        beside = ", ".join(path.name for path in _saved(given.parent))
        hint = (
            f"{given.parent} has {beside}"
            if beside
            else ("give a checkpoint such as results/<run id>/peft_200, or a model with --model")
        )
        raise UserError(f"{given} is no folder: {hint}")
    if given.is_symlink():
        raise UserError(
            f"{given} is a link, and a checkpoint is not read through links: give the folder that "
            f"it points to, {given.resolve()}"
        )
    if (given / CONFIG).exists() or not (saved := _saved(given)):
        return given
    return saved[-1]


def trained_for(path: Path) -> str | None:
    """Return the challenge that a checkpoint's manifest names; None where it names none."""
    manifest, _ = read_manifest(path)
    challenge = (manifest or {}).get("challenge")
    return challenge if challenge in challenges.names() else None


def _saved(folder: Path) -> list[Path]:
    """A run's checkpoints that are no links, in the order of their rounds."""
    return [path for path in saved_checkpoints(folder) if not path.is_symlink()]


def unofficial_reasons(submission: Submission, challenge: str) -> list[str]:
    """Return what keeps a checkpoint from being official, one phrase each; none means official.

    Locked values and the digests of released libraries come from `challenges`, never from the
    manifest. What the manifest says of the run is a claim: it shows an honest mistake, and whoever
    doubts it can train again with the library it names. It cannot stop somebody who makes it up.
    """
    manifest = submission.manifest
    if manifest is None:
        problem = submission.manifest_problem
        return [f"its manifest.json {problem}" if problem else "it has no manifest.json"]
    if not is_sealed(manifest):
        return ["its manifest was edited after the run (the checksum in it does not fit)"]
    reasons = []
    if manifest.get("adapter-sha256") != submission.weights_sha256:
        reasons.append("its weights are not the ones the manifest was written for")
    if manifest.get("adapter-config-sha256") != submission.config_sha256:
        reasons += _config_reasons(manifest.get("adapter-config"), submission.config)
    if malformed := problems(manifest):
        return [*reasons, *_first(malformed)]
    if not adapter_config.same_config(manifest["adapter-config"], submission.config):
        reasons += _config_reasons(manifest["adapter-config"], submission.config)
    static = manifest["static"]
    if static["challenge"] != challenge:
        return [*reasons, f"it was trained for {static['challenge']}, not for {challenge}"]
    differences = [
        *check_lock(
            static, manifest["supernodes"], {manifest["partitions"]}, {json_sha256(static)}
        ),
        *check_library(Library.of(manifest["library"]), []),
        *_over_budget(manifest, static),
        *row_differences(static, manifest["partitions"], manifest["rows"])[:_SHOWN],
    ]
    keys = {difference.key for difference in differences}
    # What only the run could see, such as rows that it loaded itself.
    claimed = [difference for difference in _claimed(manifest) if difference.key not in keys]
    reasons += [one_line(str(found), 300) for found in differences]
    reasons += _first([one_line(str(found), 300) for found in claimed])
    if manifest["official"] is not True and not reasons:
        reasons.append("its own manifest says unofficial")
    return list(dict.fromkeys(reasons))


def _config_reasons(recorded: Any, config: dict[str, Any]) -> list[str]:
    if not isinstance(recorded, dict):
        return [f"its manifest does not say what {CONFIG} was"]
    found = adapter_config.differences(recorded, config)
    return _first([f"{CONFIG}: {difference}" for difference in found]) or [
        f"its {CONFIG} is not the one the manifest was written for"
    ]


def _first(reasons: list[str]) -> list[str]:
    more = len(reasons) - _SHOWN
    return [*reasons[:_SHOWN], *([f"and {more} more of this kind"] if more > 0 else [])]


def _over_budget(manifest: dict[str, Any], static: dict[str, Any]) -> Sequence[Difference]:
    spent, budget = manifest["communication"]["total-mib"], locked_values(static).get("budget-mib")
    if not budget or spent <= budget:
        return []
    return [Difference("MiB communicated", spent, budget)]


def _claimed(manifest: dict[str, Any]) -> list[Difference]:
    return [
        Difference(entry["key"], entry.get("given"), entry.get("locked"))
        for entry in manifest["differences"]
    ]
