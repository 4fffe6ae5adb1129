"""The lock: compare a run with the values that are locked for its challenge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from challenges import record
from flowertune.base.hashing import json_sha256
from flowertune.rules.provenance import Library
from flowertune.rules.values import same

PREFIX = "static."


@dataclass(frozen=True)
class Difference:
    """One deviation from what is locked."""

    key: str
    given: Any
    locked: Any

    def __str__(self) -> str:
        return f"{self.key} is {self.given!r} (locked: {self.locked!r})"


def static_values(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the effective ``static.*`` values of a run-config, keys without the prefix."""
    return {key.removeprefix(PREFIX): cfg[key] for key in cfg if key.startswith(PREFIX)}


def static_digest(cfg: Mapping[str, Any]) -> str:
    """Return the sha256 of the effective ``static.*`` values of a run-config."""
    return json_sha256(static_values(cfg))


def locked_values(static: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are published for a challenge under its rules; empty if none are."""
    published = record.published(str(static.get("rules")), str(static.get("rules-version")))
    return dict(published.get(str(static.get("challenge")), {}))


def check_lock(
    static: Mapping[str, Any], nodes: int, partitions: set[int], digests: set[str]
) -> list[Difference]:
    """Return everything in which a run differs from what is locked for its challenge.

    Parameters
    ----------
    static : Mapping[str, Any]
        Flat values, keys without ``static.``.
    nodes : int
        SuperNodes that answered.
    partitions : set[int]
        The numbers of partitions that the SuperNodes say their data is split into.
    digests : set[str]
        What the clients' own static values have as sha256.
    """
    locked = locked_values(static)
    if not locked:
        given = f"{static.get('challenge')} under {static.get('rules')}"
        return [
            Difference(
                "static.rules-version",
                f"{given} {static.get('rules-version')}",
                "a challenge and rules that this version of the library has on record",
            )
        ]
    differences = [
        Difference(PREFIX + key, static.get(key), locked.get(key))
        for key in sorted(set(static) | set(locked))
        if not same(static.get(key), locked.get(key))
    ]
    wanted = locked["num-supernodes"]
    if wanted and nodes != wanted:
        differences.append(Difference("SuperNodes", nodes, wanted))
    if wanted and partitions != {wanted}:
        differences.append(Difference("partitions", sorted(partitions), [wanted]))
    own = json_sha256(static)
    if digests != {own}:
        differences.append(Difference("the digest that clients see", sorted(digests), [own]))
    return differences


def check_library(server: Library, clients: Sequence[Library]) -> list[Difference]:
    """Return what keeps the installed library, here or on a client, from being a released one."""
    known = record.library_digest(server.version)
    differences = []
    if server.editable:
        differences.append(Difference("the library", "an editable install", "a released version"))
    if server.edited:
        names = ", ".join(server.edited)
        differences.append(Difference("the library", f"edited in {names}", "as it was installed"))
    if not server.editable and not server.edited and server.sha256 != known:
        differences.append(
            Difference(
                "the library",
                f"flowertune {server.version} with the digest {server.sha256[:12]}",
                f"{known[:12]}, as released" if known else "a version whose release is on record",
            )
        )
    others = sorted({f"{c.version} ({c.sha256[:12]})" for c in clients if c != server})
    if others:
        own = f"{server.version} ({server.sha256[:12]})"
        differences.append(Difference("the library on clients", others, [own]))
    return differences


def verdict(static: Mapping[str, Any], differences: Sequence[Difference]) -> str:
    """Return the one line that says whether a run is official, and if not, why."""
    name = f"{static.get('challenge')}, rules {static.get('rules')}"
    if not differences:
        # The rules have numbers in their names, and the base example is free of them.
        free = ", any number of SuperNodes" if static.get("num-supernodes") == 0 else ""
        name = f"{name} {static.get('rules-version')}{free}"
        return f"OFFICIAL run ({name}): every locked value is kept."
    return f"UNOFFICIAL run ({name}): " + "; ".join(map(str, differences)) + "."
