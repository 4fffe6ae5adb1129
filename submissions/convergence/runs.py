"""Reference runs, out of the folders that they wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import read_json, read_jsonl
from submissions.convergence.bands import losses

_STATIC = ("challenge", "rules", "rules-version")
# What a reader of the band wants to know of the runs; they may differ in the seed.
_SETTINGS = (
    "num-server-rounds", "strategy.fraction-train", "train.learning-rate-max",
    "train.learning-rate-min", "train.training-arguments.max-steps",
    "train.training-arguments.per-device-train-batch-size", "train.seq-length",
    "model.quantization", "model.lora.peft-lora-r", "prompt.template",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run that ended: what it was for, its settings, and its loss in each round."""

    folder: Path
    challenge: str
    rules: str
    version: str
    model: str
    official: bool
    settings: dict[str, Any]
    curve: list[float | None]

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What runs of one band share."""
        return self.rules, self.version, self.challenge, self.model


def read_run(folder: Path) -> Run:
    """Return a run out of its folder.

    Raises:
        UserError: it is none, has not ended, or lacks rounds.
    """
    info = read_json(folder / "run.json")
    if info is None:
        raise UserError(f"{folder} holds no run.json: give folders of runs, results/<run id>")
    settings = info.get("settings", {})
    if info.get("status") != "finished":
        raise UserError(
            f"the run in {folder} is {info.get('status')}, and a reference run has to be finished"
        )
    curve = losses(read_jsonl(folder / "rounds.jsonl"))
    if len(curve) != info.get("rounds") or None in curve:
        raise UserError(
            f"the run in {folder} has a loss for {len(curve) - curve.count(None)} of its "
            f"{info.get('rounds')} rounds: leave it out"
        )
    challenge, rules, version = (str(settings.get(f"static.{key}")) for key in _STATIC)
    return Run(
        folder, challenge, rules, version, str(info.get("model")), info.get("official") is True,
        {key: settings[key] for key in _SETTINGS if key in settings}, curve,
    )  # fmt: skip


def differing(runs: Sequence[Run]) -> list[str]:
    """Return the settings in which runs of one band differ, and should not."""
    names = {name for run in runs for name in run.settings}
    return sorted(name for name in names if len({repr(run.settings.get(name)) for run in runs}) > 1)
