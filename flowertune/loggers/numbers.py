"""The numbers of a round, by the names they have on a board."""

from collections.abc import Mapping
from typing import Any

NAMES = {
    "train-loss": "train/loss",
    "learning-rate": "train/learning-rate",
    "tokens": "train/tokens",
    "supervised-tokens": "train/supervised-tokens",
    "clients": "round/clients",
    "failed": "round/failed",
    "refused": "round/refused",
    "seconds": "round/seconds",
    "total-mib": "communication/mib",
}


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of rounds.jsonl; what is not there is left out."""
    found = {
        name: float(line[key])
        for key, name in NAMES.items()
        if isinstance(line.get(key), int | float)
    }
    if line.get("tokens") and line.get("seconds"):
        found["round/tokens-per-second"] = line["tokens"] / line["seconds"]
    return found
