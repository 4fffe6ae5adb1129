"""The lock: hold a run against the values that are locked for its challenge."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

PREFIX = "static."


@dataclass(frozen=True)
class Difference:
    """One locked thing that is not as it is locked."""

    key: str
    given: Any
    locked: Any

    def __str__(self) -> str:
        return f"{self.key} is {self.given!r} (locked: {self.locked!r})"


def static_values(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the effective ``static.*`` values of a run-config, keys without the prefix."""
    return {key.removeprefix(PREFIX): cfg[key] for key in cfg if key.startswith(PREFIX)}


def digest(static: Mapping[str, Any]) -> str:
    """Return the sha256 of flat static values, whatever their order and layout in the file."""
    text = json.dumps(dict(static), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def locked_values() -> dict[str, Any]:
    """Return the locked values this app was rendered with (rules/locked.json)."""
    text = resources.files("flowertune.rules").joinpath("locked.json").read_text("utf-8")
    return json.loads(text)


def differences(
    static: Mapping[str, Any],
    locked: Mapping[str, Any],
    supernodes: int,
    partitions: set[int],
) -> list[Difference]:
    """Return everything in which a run differs from what is locked.

    Parameters
    ----------
    static, locked : Mapping[str, Any]
        Flat values, keys without ``static.``.
    supernodes : int
        SuperNodes that answered the roll call.
    partitions : set[int]
        The numbers of partitions that the SuperNodes say their data is split into.
    """
    found = [
        Difference(PREFIX + key, static.get(key), locked.get(key))
        for key in sorted(set(static) | set(locked))
        if static.get(key) != locked.get(key)
    ]
    wanted = locked.get("num-supernodes", 0)
    if wanted and supernodes != wanted:
        found.append(Difference("SuperNodes", supernodes, wanted))
    if wanted and partitions != {wanted}:
        found.append(Difference("partitions", sorted(partitions), [wanted]))
    return found


def verdict(static: Mapping[str, Any], found: list[Difference]) -> str:
    """Return the one line that says whether a run is official, and if not, why."""
    name = f"{static.get('challenge')}, rules {static.get('rules')}"
    if not found:
        return f"OFFICIAL run ({name} {static.get('rules-version')}): every locked value is kept."
    return f"UNOFFICIAL run ({name}): " + "; ".join(map(str, found)) + "."
