"""The manifest: how a checkpoint was made, written beside its weights."""

from collections.abc import Mapping
from typing import Any

from flowertune.base.hashing import json_sha256
from flowertune.base.text import MIB
from flowertune.rules import values
from flowertune.rules.values import (
    DIGEST,
    SWITCH,
    TEXT,
    Value,
    one_of,
    optional,
    same,
    shown,
    whole,
)

FILE = "manifest.json"
SEAL = "manifest-sha256"
FORMAT = 4


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with the sha256 of its own content.

    It shows an honest mistake, such as an edited file; it does not stop a forger.
    """
    body = {key: manifest[key] for key in manifest if key != SEAL}
    return {**body, SEAL: json_sha256(body)}


def is_sealed(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is unchanged since it was written."""
    return manifest.get(SEAL) == seal(manifest)[SEAL]


def object_with(of: Value | None = None, **fields: Value) -> Value:
    """An object: with these fields at least, or with any fields that hold ``of``."""

    def fits(given: Any) -> bool:
        if not isinstance(given, dict):
            return False
        if not all(map(values.is_text, given)):
            return False
        if of is not None and not all(of.fits(value) for value in given.values()):
            return False
        return all(key in given and value.fits(given[key]) for key, value in fields.items())

    held = [f"{key} ({value.allowed})" for key, value in fields.items()]
    held += [f"nothing but {of.allowed}"] if of else []
    return Value(f"an object with {', '.join(held)}" if held else "an object", fits)


def list_of(of: Value) -> Value:
    return Value(
        f"a list of {of.allowed}",
        lambda given: isinstance(given, list) and all(map(of.fits, given)),
    )


_PLAIN = Value(
    "texts and numbers",
    lambda v: type(v) is bool or values.is_number(v) or (isinstance(v, str) and len(v) <= 4096),
)
_MIB = Value("a number from 0", lambda given: values.is_number(given) and given >= 0)
# A client's reply is held to it, too: one that says other things would spoil every checkpoint.
ROWS_OF_A_CLIENT = object_with(
    dataset=TEXT, revision=TEXT, rows=whole(), sha256=DIGEST, **{"unique-rows": whole()}
)
# By kind, the sha256 of what a client keeps for later rounds.
KEPT_OF_A_CLIENT = Value(
    "an object with nothing but a sha256 of state or residual",
    lambda v: object_with(of=DIGEST).fits(v) and v.keys() <= {"state", "residual"},
)
# What a verdict rests on, or stands in a sentence or a result.
FIELDS = {
    "format": one_of(FORMAT),
    "kind": one_of("adapter"),
    "challenge": TEXT,
    "rules": TEXT,
    "rules-version": TEXT,
    "official": SWITCH,
    "differences": list_of(object_with(key=TEXT)),
    "static": object_with(of=_PLAIN, challenge=TEXT, rules=TEXT, **{"rules-version": TEXT}),
    "static-sha256": DIGEST,
    "supernodes": whole(1),
    "partitions": whole(1),
    "rounds": whole(1),
    "round": whole(1),
    "seed": whole(-(2**53)),
    "settings": object_with(of=_PLAIN, **{"model.name": TEXT, "model.revision": TEXT}),
    "base-model": object_with(name=TEXT, revision=TEXT, path=TEXT),
    "rows": object_with(of=ROWS_OF_A_CLIENT),
    "communication": object_with(
        **{
            "sent-bytes": whole(),
            "received-bytes": whole(),
            "total-mib": _MIB,
            "budget-mib": whole(),
        }
    ),
    "library": object_with(version=TEXT, sha256=DIGEST, editable=SWITCH, edited=list_of(TEXT)),
    "adapter-config": object_with(),
    "adapter-config-sha256": DIGEST,
    "adapter-sha256": DIGEST,
    "chain": object_with(round=whole(), sha256=DIGEST),
    "app": object_with(files=object_with(of=DIGEST), sha256=DIGEST),
    "environment": object_with(packages=object_with(of=TEXT)),
    "hardware": object_with(
        gpus=list_of(TEXT),
        machine=TEXT,
        system=TEXT,
        processor=optional(TEXT),
        cores=optional(whole(1)),
        threads=optional(whole(1)),
    ),
}

_ABOVE_ZERO = Value("a number above 0", lambda given: values.is_number(given) and given > 0)
_NUMBER = Value("a number", values.is_number)
# What only some have.
MORE = {
    "first-adapter": object_with(init=TEXT, partition=whole()),
    "held-out-loss": optional(_NUMBER),
    "chosen": optional(object_with(round=whole(1), rows=whole(1), loss=_NUMBER)),
    "privacy": object_with(
        epsilon=Value("a number from 0", _MIB.fits), delta=_ABOVE_ZERO, releases=whole(1)
    ),
}


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """Return what makes the manifest of an adapter malformed, one phrase each.

    Each begins with "its manifest". A manifest without problems has every field of ``FIELDS``, of
    the right type, and does not contradict itself; what it has of ``MORE`` is of the right type.
    """
    wrong = [
        f"its manifest has {key} {shown(manifest[key])}, which has to be {value.allowed}"
        if key in manifest
        else f"its manifest has no {key}"
        for key, value in {**FIELDS, **{k: v for k, v in MORE.items() if k in manifest}}.items()
        if key not in manifest or not value.fits(manifest[key])
    ]
    return wrong or [f"its manifest contradicts itself: {found}" for found in _conflicts(manifest)]


def _conflicts(manifest: Mapping[str, Any]) -> list[str]:
    """What a manifest says twice, and differently; its fields have the right types."""
    static, settings, base = manifest["static"], manifest["settings"], manifest["base-model"]
    spent, config = manifest["communication"], manifest["adapter-config"]
    total = round((spent["sent-bytes"] + spent["received-bytes"]) / MIB, 3)
    pairs: list[tuple[str, Any, str, Any]] = [
        (f"static.{key}", static[key], key, manifest[key])
        for key in ("challenge", "rules", "rules-version")
    ]
    pairs += [
        (f"settings static.{key}", settings.get(f"static.{key}"), f"static {key}", value)
        for key, value in static.items()
    ]
    pairs += [
        ("static-sha256", manifest["static-sha256"], "the sha256 of static", json_sha256(static)),
        ("budget-mib", spent["budget-mib"], "static.budget-mib", static.get("budget-mib")),
        ("base-model name", base["name"], "model.name", settings["model.name"]),
        ("base-model revision", base["revision"], "model.revision", settings["model.revision"]),
        ("seed", manifest["seed"], "the setting", settings.get("seed")),
        ("rounds", manifest["rounds"], "num-server-rounds", settings.get("num-server-rounds")),
        (
            "base-model path", base["path"],
            "adapter-config", config.get("base_model_name_or_path"),
        ),
        ("base-model revision", base["revision"], "adapter-config", config.get("revision")),
    ]  # fmt: skip
    found = [
        f"{one} is {shown(given)}, {other} is {shown(again)}"
        for one, given, other, again in pairs
        if not same(given, again)
    ]
    if abs(spent["total-mib"] - total) > 0.0015:
        found.append(f"total-mib is {spent['total-mib']}, its bytes are {total} MiB")
    if not manifest["rows"]:
        found.append("its clients trained on no rows")
    found += [
        f"partition {shown(name)} has {rows['unique-rows']} unique rows of {rows['rows']}"
        for name, rows in sorted(manifest["rows"].items())
        if rows["unique-rows"] > rows["rows"]
    ][:1]
    if manifest["round"] > manifest["rounds"]:
        found.append(f"round is {manifest['round']} of {manifest['rounds']}")
    if manifest["official"] == bool(manifest["differences"]):
        count = len(manifest["differences"])
        found.append(f"official is {manifest['official']} with {count} differences")
    partitions = {str(number) for number in range(manifest["partitions"])}
    found += [
        f"rows of partition {shown(name)} of {manifest['partitions']}"
        for name in sorted(manifest["rows"].keys() - partitions)
    ][:1]
    found += [
        f"partition {shown(name)} trained on {shown(rows[what])}, static.dataset.{key} is "
        f"{shown(static.get(f'dataset.{key}'))}"
        for name, rows in sorted(manifest["rows"].items())
        for key, what in (("name", "dataset"), ("revision", "revision"))
        if not same(rows[what], static.get(f"dataset.{key}"))
    ][:1]
    return found
