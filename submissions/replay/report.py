"""What a replay found, as findings: the same report that verify gives, signed or not."""

import platform
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from flowertune.base.hardware import hardware
from flowertune.base.versions import package_versions
from flowertune.rules.provenance import installed_library
from submissions import tiers
from submissions.findings import Finding, Report, ordered
from submissions.replay import draw
from submissions.replay.compare import OPEN, SAME, WITHIN, Compared
from submissions.replay.replay import Replay

EMPTY: Mapping[str, Any] = MappingProxyType({})
_DECIDES = ("torch", "transformers", "peft", "numpy", "flwr", "bitsandbytes")


def report(
    name: str, found: Replay, verified: Sequence[Finding] = (), facts: Mapping[str, Any] = EMPTY
) -> Report:
    """Return the report of a replay.

    Parameters
    ----------
    name : str
        The bundle's.
    verified, facts
        What verifying the bundle found and confirmed.
    """
    findings = list(verified)
    findings += [Finding("run", "error", "", text, "replay") for text in found.errors]
    findings += [Finding("run", "note", "", text, "replay") for text in found.notes]
    for result in found.results:
        findings += _of_round(result, found.tolerance)
    findings += _of_system(found)
    facts = {**facts, "replay": facts_of(found)}
    return Report(name, found.digest, ordered(findings), tiers.REPLAYED, facts)


def facts_of(found: Replay) -> dict[str, Any]:
    """Return what was done and found, as JSON."""
    own = own_system()
    return {
        "nonce": found.nonce,
        "seed": draw.seed_of(found.digest, found.nonce),
        "rounds": found.rounds,
        "of": found.of,
        "tolerance": found.tolerance,
        "results": [result.body() for result in found.results],
        "chances": [
            {"false-share": share, "chance": round(chance, 4)}
            for share, chance in draw.chances(found.of, len(found.rounds) - min(found.of, 2))
        ],
        **own,
    }


def own_system() -> dict[str, Any]:
    """Return what this machine and its library are."""
    return {
        "hardware": hardware(),
        "versions": package_versions(),
        "library": installed_library().record(),
        "platform": platform.platform(),
    }


def _of_round(result: Compared, tolerance: float) -> list[Finding]:
    place = f"round {result.server_round}"
    if result.verdict == SAME:
        return [Finding("run", "note", place, "Trained again to the same bits.", "replay")]
    first = result.differences[0].sentence if result.differences else ""
    if result.verdict == WITHIN:
        sentence = (
            f"Trained again, its update is {result.update:.2g} apart (relative), within the "
            f"tolerance of {tolerance:g}; first, {first}."
        )
        return [Finding("run", "warning", place, sentence, "replay")]
    if result.verdict == OPEN:
        return [
            Finding(
                "run",
                "error",
                place,
                f"Trained again, {first}, and without the states before and after the round "
                "nothing says by how much: ask for them, and give them with --states.",
                "replay",
            )
        ]
    apart = "" if result.update is None else f" (update {result.update:.2g} apart, relative)"
    verb = "could not be trained again" if result.verdict.startswith("could") else "differs"
    return [
        Finding("run", "error", place, f"The round {verb}{apart}: {d.sentence}.", "replay")
        for d in result.differences[:5]
    ]


def _of_system(found: Replay) -> list[Finding]:
    """Say where this machine is another one than that of the run: bits may then differ."""
    own = own_system()
    pairs: list[tuple[str, Any, Any]] = [
        *(
            (what, found.record.hardware.get(key), own["hardware"].get(key))
            for key, what in (("gpus", "the GPU"), ("processor", "the processor"))
        ),
        ("the library", _of(found.record.library, "sha256"), _of(own["library"], "sha256")),
    ]
    pairs += [
        (name, found.record.versions.get(name), own["versions"].get(name)) for name in _DECIDES
    ]
    different = [
        f"{what} was {_shown(was)} and is {_shown(now)}"
        for what, was, now in pairs
        if was is not None and was != now
    ]
    if not different:
        return []
    sentence = f"This machine is not that of the run, so bits may differ: {'; '.join(different)}."
    return [Finding("system", "note", "", sentence, "replay-system")]


def _of(body: Mapping[str, Any], key: str) -> Any:
    return body.get(key)


def _shown(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) == 64 else text[:60]
