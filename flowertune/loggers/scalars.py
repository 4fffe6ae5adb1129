"""The numbers of a round, by the names that loggers show them under."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "train-loss": "train/loss",
    "learning-rate": "train/learning-rate",
    "held-out-loss": "evaluate/held-out-loss",
    "tokens": "train/tokens",
    "supervised-tokens": "train/supervised-tokens",
    "clients": "round/clients",
    "failed": "round/failed",
    "refused": "round/refused",
    "seconds": "round/seconds",
    "total-mib": "communication/mib",
    "bytes-down": "communication/bytes-down",
    "bytes-up": "communication/bytes-up",
    "residual": "method/residual",
    "drift": "method/drift",
    "export-error": "method/export-error",
}


def round_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in a line of rounds.jsonl; those it lacks are left out."""
    scalars = {
        name: float(line[key])
        for key, name in NAMES.items()
        if isinstance(line.get(key), int | float)
    }
    if line.get("tokens") and line.get("seconds"):
        scalars["round/tokens-per-second"] = line["tokens"] / line["seconds"]
    return scalars
