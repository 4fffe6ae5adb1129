"""The types of every file that the verifier reads; what they mean is in docs/file-formats.md."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flowertune.rules.manifest import list_of, object_with
from flowertune.rules.values import (
    DIGEST,
    SWITCH,
    TEXT,
    Value,
    is_number,
    is_text,
    one_of,
    optional,
    whole,
)
from flowertune.run.chain import CHOICE

_POINTS = re.compile(r"[0-9]{1,3}\.[0-9]{2}")
_SIGNED = re.compile(r"[+-]?[0-9]{1,3}\.[0-9]{2}")
_INTEGER = re.compile("0|[1-9][0-9]{0,8}")


def moment(text: str) -> datetime:
    """Return the time that a text in ISO form says.

    Raises
    ------
    ValueError
        It says none.
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _time(given: Any) -> bool:
    if not is_text(given) or len(given) > 40:
        return False
    try:
        return moment(given).tzinfo is not None
    except ValueError:
        return False


def _matches(pattern: re.Pattern[str]) -> Any:
    return lambda given: isinstance(given, str) and pattern.fullmatch(given) is not None


ANY = Value("anything", lambda given: True)
NUMBER = Value("a number", is_number)
POSITIVE = Value("a number from 0", lambda given: is_number(given) and given >= 0)
POINTS = Value("a text with two decimals", _matches(_POINTS))
SIGNED = Value("a text with two decimals", _matches(_SIGNED))
TIME = Value("a time with its zone in ISO form", _time)
WORDS = Value("a text", lambda given: isinstance(given, str) and len(given) <= 100_000)
OBJECT = object_with()
PARTITION = Value(
    "a partition's number as text",
    lambda given: isinstance(given, str) and _INTEGER.fullmatch(given) is not None,
)


def by_partition(of: Value) -> Value:
    """An object whose keys are numbers of partitions."""
    return Value(
        f"an object of partitions with {of.allowed}",
        lambda given: (
            isinstance(given, dict)
            and all(PARTITION.fits(key) for key in given)
            and all(map(of.fits, given.values()))
        ),
    )


LIBRARY = object_with(version=TEXT, sha256=DIGEST, editable=SWITCH, edited=list_of(TEXT))
REPLIES = object_with(asked=whole(), lost=whole(), first=list_of(object_with()))

RUN: Mapping[str, Value] = {
    "run-id": TEXT,
    "challenge": TEXT,
    "rules": TEXT,
    "official": SWITCH,
    "differences": list_of(object_with(key=TEXT)),
    "rounds": whole(1),
    "clients-per-round": whole(1),
    "supernodes": whole(1),
    "budget-mib": whole(),
    "started": TIME,
    "ended": optional(TIME),
    "status": TEXT,
    "reason": optional(WORDS),
    "settings": OBJECT,
    "adapter-config": OBJECT,
    "library": LIBRARY,
    "replies": REPLIES,
    "chain": object_with(round=whole(), sha256=DIGEST),
    "chosen": optional(CHOICE),
    "flwr-run-ids": Value(
        "a list of one text or more", lambda v: list_of(TEXT).fits(v) and bool(v)
    ),
}
LINE: Mapping[str, Value] = {
    **dict.fromkeys(("round", "clients", "asked"), whole(1)),
    **dict.fromkeys(("failed", "sent-bytes", "received-bytes", "tokens"), whole()),
    **dict.fromkeys(("seconds", "total-mib"), POSITIVE),
    "train-loss": optional(NUMBER),
    "learning-rate": optional(NUMBER),
    "partitions": list_of(whole()),
    "lost": by_partition(WORDS),
    **dict.fromkeys(("bytes-down", "bytes-up"), whole()),
    **dict.fromkeys(("residual", "drift"), optional(POSITIVE)),
    "residuals": object_with(of=optional(POSITIVE)),
    "time": TIME,
}
ENTRY: Mapping[str, Value] = {
    "round": whole(),
    "partition": optional(whole()),
    "direction": one_of("sent", "received"),
    "bytes": whole(),
}
_SHARES = object_with(
    **{"score": POINTS, "standard-error": optional(POINTS), "interval-95": list_of(SIGNED)},
    points=TEXT,
    **{"unparseable-answers": optional(POINTS)},
)
SET = object_with(
    title=TEXT,
    metric=TEXT,
    rows=whole(1),
    full=SWITCH,
    data=object_with(status=TEXT, **{"rows-sha256": DIGEST, "documents-sha256": DIGEST}),
    scores=object_with(of=_SHARES),
)
RESULTS: Mapping[str, Value] = {
    "format": whole(1),
    "challenge": TEXT,
    "suite": TEXT,
    "models": list_of(TEXT),
    "rules": object_with(name=optional(TEXT), version=optional(TEXT)),
    "unofficial": list_of(WORDS),
    "deviations": list_of(WORDS),
    "decoding": OBJECT,
    "sets": object_with(of=SET),
    "average": object_with(scores=OBJECT),
    "contamination": object_with(checked=SWITCH),
    "provenance": object_with(
        library=LIBRARY, tasks=OBJECT, **{"task-sha256": OBJECT, "prompts-sha256": OBJECT}
    ),
}
ENVIRONMENT: Mapping[str, Value] = {
    "python": TEXT,
    "platform": OBJECT,
    "packages": object_with(of=TEXT),
    "hardware": OBJECT,
}
ROWS = object_with(rows=whole(), sha256=DIGEST, **{"unique-rows": whole()})
FINGERPRINTS: Mapping[str, Value] = {
    "dataset": TEXT,
    "revision": TEXT,
    "partitions": by_partition(ROWS),
    "all": object_with(rows=whole(), **{"unique-rows": optional(whole())}),
}
