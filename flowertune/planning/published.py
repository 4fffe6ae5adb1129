"""The memory that FlowerTune's documents publish, compared with this estimate."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from peft import LoraConfig

from flowertune.config.settings import defaults, typed
from flowertune.planning.architecture import architecture
from flowertune.planning.memory import estimate

# The settings that the published values were taken with.
SETTINGS = {
    "model.revision": "main",
    "model.dtype": "auto",
    "model.trust-remote-code": False,
    "model.gradient-checkpointing": True,
    "model.lora.peft-lora-r": 32,
    "model.lora.peft-lora-alpha": 64,
    "model.lora.peft-lora-dropout": 0.075,
    "model.lora.target-modules": "auto",
    "train.seq-length": 512,
    "train.training-arguments.per-device-train-batch-size": 16,
}


@dataclass(frozen=True)
class Comparison:
    """One published value and the estimate for the same settings, in GB."""

    setting: str
    published: float
    estimated: float

    @property
    def error(self) -> float:
        """How far the estimate is off, as a share of the published value."""
        return self.estimated / self.published - 1


def published() -> dict[str, dict[str, Any]]:
    """Return the published values, by setting."""
    text = Path(__file__).with_name("published.json").read_text("utf-8")
    return json.loads(text)


def comparisons() -> list[Comparison]:
    """Return the estimate's error against each published value."""
    return [
        Comparison(name, row["gb"], _estimated(row["model"], row["bits"]))
        for name, row in published().items()
    ]


@cache
def _estimated(model: str, bits: int) -> float:
    cfg = typed({**defaults(), **SETTINGS, "model.name": model, "model.quantization": bits}, Path())
    lora = cfg.model.lora
    config = LoraConfig(r=lora.peft_lora_r, lora_alpha=64, task_type="CAUSAL_LM")
    return estimate(architecture(cfg, config), cfg).total
