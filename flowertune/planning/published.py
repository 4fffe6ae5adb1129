"""The memory that FlowerTune's documents publish, beside this estimate."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from flowertune.models.memory import Shapes, Work, estimate

# What the published values were taken with.
ROWS, TOKENS = 16, 512
# Why they are higher, and differ among each other.
WHY = (
    "The published values are what the card showed for the first FlowerTune app, which computed in "
    "float32 what is not quantized; they count what PyTorch keeps in reserve, and differ in the "
    "rows' lengths."
)


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


@cache
def published() -> dict[str, dict[str, Any]]:
    """Return the published values, by setting."""
    text = Path(__file__).with_name("published.json").read_text("utf-8")
    return json.loads(text)


def comparisons(model: str, shapes: Shapes) -> list[Comparison]:
    """Return what is published for a model beside the estimate; nothing for most models."""
    return [
        Comparison(name, row["gb"], _estimated(shapes, row["bits"]))
        for name, row in published().items()
        if row["model"] == model
    ]


def _estimated(shapes: Shapes, bits: int) -> float:
    work = Work(bits=bits, value=2, rows=ROWS, tokens=TOKENS, checkpointing=True)
    return estimate(shapes, work).total
