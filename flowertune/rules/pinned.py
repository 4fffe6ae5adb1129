"""What a version of the rules pins of data and models, and whether a run loaded just that."""

from collections.abc import Mapping
from typing import Any

from challenges import record
from flowertune.rules.lock import Difference

VERIFIED, UNVERIFIED, OTHER = "verified", "unverified", "other"


def pins_of(static: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the rules of a run pin for its challenge (``record.pinned``); empty for none."""
    pinned = record.pinned(str(static.get("rules")), str(static.get("rules-version")))
    return pinned.get(str(static.get("challenge")), {})


def row_differences(
    static: Mapping[str, Any], partitions: int, rows: Mapping[Any, Mapping[str, Any]]
) -> list[Difference]:
    """Return every partition whose rows are not those that the rules pin.

    Parameters
    ----------
    static : Mapping[str, Any]
        The locked values of the run.
    partitions : int
        Into how many its data are split.
    rows : Mapping[Any, Mapping[str, Any]]
        By number of the partition (or that number as a text), what its client says it loaded.
    """
    known = _partitions(static, partitions)
    return [
        Difference(
            f"rows of partition {number}", rows[number]["sha256"][:12], known[int(number)][:12]
        )
        for number in sorted(rows, key=int)
        if known and rows[number]["sha256"] != known[int(number)]
    ]


def rows_status(
    static: Mapping[str, Any], partitions: int, rows: Mapping[Any, Mapping[str, Any]]
) -> str:
    """Return "verified", "other" or, where the rules pin no such partitions, "unverified"."""
    if not rows or not _partitions(static, partitions):
        return UNVERIFIED
    return OTHER if row_differences(static, partitions, rows) else VERIFIED


def model_status(static: Mapping[str, Any], name: str, commit: str | None) -> str:
    """Return whether a base model is the default one, at the commit that the rules pin.

    "unverified" where they pin none, or its commit is not known.
    """
    model = pins_of(static).get("model")
    if model is None or (name == model["name"] and commit is None):
        return UNVERIFIED
    return VERIFIED if (name, commit) == (model["name"], model["revision"]) else OTHER


def sentence(static: Mapping[str, Any]) -> str:
    """Return what the rules of an official run say of its data, for its first lines."""
    rules = f"the rules {static.get('rules')} {static.get('rules-version')}"
    if not pins_of(static):
        return f"Data and base model: unverified, since {rules} pin none."
    return f"Data and base model: compared with what {rules} pin, as they are loaded."


def _partitions(static: Mapping[str, Any], partitions: int) -> list[str]:
    training = pins_of(static).get("training", {})
    return training.get("partitions", {}).get(str(partitions), [])
