"""submission.json: who submits what, in which division, and the scores that are claimed."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import challenges
from flowertune.base.text import counted
from flowertune.config.settings import defaults
from flowertune.rules.checkpoint import WEIGHTS
from flowertune.rules.manifest import object_with
from flowertune.rules.pinned import pins_of
from flowertune.rules.values import (
    DIGEST,
    TEXT,
    Value,
    is_number,
    one_of,
    optional,
    shown,
    whole,
)
from submissions.bundle.sources import BEST, LAST, Sources

FORMAT = 1
CLOSED, OPEN = "closed", "open"
_LINK = re.compile(r"https://[!-~]{4,2000}")
_SCORE = re.compile(r"[0-9]{1,3}\.[0-9]{2}")
_TIME = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]Z")
_MOST_HOURS = 10**6
_BLANK = frozenset("\u115f\u1160\u3164\uffa0")  # fillers of Hangul
_PILE = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4}")
NAME = Value(
    "one line of 1 to 100 characters with a letter or a digit",
    lambda given: (
        isinstance(given, str)
        and len(given) <= 100
        and given.isprintable()
        # Some letters have no ink, and marks pile up over the lines above.
        and any(char.isalnum() and char not in _BLANK for char in given)
        and _PILE.search(unicodedata.normalize("NFD", given)) is None
    ),
)
NOTE = Value(
    "one line of at most 1,000 characters",
    lambda given: isinstance(given, str) and 0 < len(given) <= 1000 and given.isprintable(),
)
LINK = Value(
    "an https address",
    lambda given: isinstance(given, str) and _LINK.fullmatch(given) is not None,
)
SCORE = Value(
    "a percentage with two decimals, as a text",
    lambda given: isinstance(given, str) and _SCORE.fullmatch(given) is not None,
)
HOURS = Value(
    "a number of hours from 0", lambda given: is_number(given) and 0 <= given <= _MOST_HOURS
)
TIME = Value(
    "a time in UTC, such as 2026-01-31T12:00:00Z",
    lambda given: isinstance(given, str) and _TIME.fullmatch(given) is not None,
)
# What submission.json says; strict: no other key.
FIELDS: dict[str, Value] = {
    "format": one_of(FORMAT),
    "team": NAME,
    "contact": NAME,
    "division": one_of(CLOSED, OPEN),
    "challenge": TEXT,
    "rules": TEXT,
    "rules-version": TEXT,
    "template-version": optional(TEXT),
    "library": object_with(version=TEXT, sha256=DIGEST),
    "checkpoint": object_with(round=whole(1), chosen=one_of(LAST, BEST), digest=DIGEST),
    "weights": object_with(sha256=DIGEST, bytes=whole(1), link=optional(LINK)),
    "states": object_with(rounds=whole(1), link=optional(LINK)),
    "scores": object_with(of=SCORE),
    "average": SCORE,
    "hardware": NAME,
    "hours": HOURS,
    "created": TIME,
    "note": optional(NOTE),
}


@dataclass(frozen=True)
class Said:
    """What the participant says; None is found out where it can be.

    Attributes
    ----------
    team, contact
        Who submits, and how to reach them.
    division
        "closed" or "open".
    note
        A line for the board.
    hardware, hours
        What was trained on, and how long.
    link, states_link
        Where weights that are not in the bundle lie, and the states.
    """

    team: str | None = None
    contact: str | None = None
    division: str | None = None
    note: str | None = None
    hardware: str | None = None
    hours: float | None = None
    link: str | None = None
    states_link: str | None = None


def division_of(manifest: Mapping[str, Any]) -> str:
    """Return the division of a checkpoint: closed on the challenge's default base model."""
    default, base = challenges.load(manifest["challenge"])["model"], manifest["base-model"]
    usual = base["name"] == default and base["revision"] in default_revisions(manifest)
    return CLOSED if usual else OPEN


def default_revisions(manifest: Mapping[str, Any]) -> set[str]:
    """Return which revisions of the default base model are the published one.

    Its main branch, and the commit that the rules pin. A branch or a proposed change has other
    weights under the same name.
    """
    pinned = pins_of(manifest["static"]).get("model", {}).get("revision")
    return {str(defaults()["model.revision"]), *([pinned] if pinned else [])}


def statement(sources: Sources, said: Said) -> dict[str, Any]:
    """Return what submission.json says; it need not be right: see ``problems``."""
    manifest, results = sources.manifest, sources.results
    weights = sources.checkpoint / WEIGHTS
    hours, hardware = said.hours, said.hardware
    return {
        "format": FORMAT,
        "team": said.team,
        "contact": said.contact,
        "division": said.division or division_of(manifest),
        "challenge": manifest["challenge"],
        "rules": manifest["rules"],
        "rules-version": manifest["rules-version"],
        "template-version": manifest.get("template-version"),
        "library": {key: manifest["library"][key] for key in ("version", "sha256")},
        "checkpoint": {
            "round": manifest["round"],
            "chosen": sources.chosen,
            "digest": sources.digest,
        },
        "weights": {
            "sha256": sources.weights_sha256,
            "bytes": weights.stat().st_size,
            "link": said.link,
        },
        "states": {"rounds": sources.rounds, "link": said.states_link},
        "scores": {
            name: _score(entry.get("scores", {})) for name, entry in results["sets"].items()
        },
        "average": _score(results.get("average", {}).get("scores", {})),
        "hardware": hardware if hardware is not None else hardware_of(manifest["hardware"]),
        "hours": hours if hours is not None else hours_of(sources.run.rounds, manifest["round"]),
        "created": created(results),
        "note": said.note,
    }


# What may be said, and how.
_SAID: dict[str, tuple[str, Value]] = {
    "team": ("--team", NAME),
    "contact": ("--contact", NAME),
    "note": ("--note", NOTE),
    "hardware": ("--hardware", NAME),
    "hours": ("--hours", HOURS),
    "link": ("--link", LINK),
    "states_link": ("--states-link", LINK),
}


def unsaid(said: Said) -> dict[str, str]:
    """Return what the participant has to say and does not, or says wrongly: a sentence by field."""
    found = {
        name: f"{option} is {shown(getattr(said, name))}, which has to be {value.allowed}."
        for name, (option, value) in _SAID.items()
        if getattr(said, name) is not None and not value.fits(getattr(said, name))
    }
    missing = {
        name: f"The {name} is missing: give it with --{name}."
        for name in ("team", "contact")
        if getattr(said, name) is None
    }
    return {**missing, **found}


def problems(body: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a statement, one sentence each."""
    return [
        f"{key} is {shown(body[key])}, which has to be {value.allowed}."
        for key, value in FIELDS.items()
        if not value.fits(body[key])
    ]


def division_problem(given: str, manifest: Mapping[str, Any]) -> str | None:
    """Return why a checkpoint cannot enter a division; None if it can."""
    default, base = challenges.load(manifest["challenge"])["model"], manifest["base-model"]
    if given != CLOSED or division_of(manifest) == CLOSED:
        return None
    own = f"its revision {base['revision']}" if base["name"] == default else base["name"]
    return (
        f"The closed division is for the challenge's default base model, {default}, and the "
        f"checkpoint is of {own}: leave --division out, or say open."
    )


def hardware_of(facts: Mapping[str, Any]) -> str:
    """Return the machine that a run was on, in words."""
    gpus = facts.get("gpus") or []
    named = [f"{gpus.count(gpu)} × {gpu}" for gpu in dict.fromkeys(map(str, gpus))]
    cores = facts.get("cores")
    processor = facts.get("processor") or facts.get("machine")
    cpu = counted(cores, "core") if isinstance(cores, int) else "cores"
    words = ", ".join([*named, f"{cpu} ({processor})" if processor else cpu])
    return "".join(c for c in words if c.isprintable())[:100]


def hours_of(rounds: Sequence[Mapping[str, Any]], last: int) -> float:
    """Return the hours that a run's rounds took, up to one of them."""
    seconds = sum(line.get("seconds", 0.0) for line in rounds if line["round"] <= last)
    return round(seconds / 3600, 4)


def slug(team: str) -> str:
    """Return a team's name as a part of a file's name."""
    plain = unicodedata.normalize("NFKD", team).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower())[:40].strip("-") or "team"


def _score(scores: Mapping[str, Any]) -> Any:
    one = scores.get("checkpoint") if isinstance(scores, dict) else None
    return one.get("score") if isinstance(one, dict) else None


def created(results: Mapping[str, Any]) -> Any:
    """Return when the score was there: so the same run and score make the same bundle."""
    facts = results["provenance"]
    try:
        begun = datetime.strptime(facts["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        ended = begun + timedelta(seconds=float(facts["seconds"]["total"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return facts.get("started")
    return ended.strftime("%Y-%m-%dT%H:%M:%SZ")
