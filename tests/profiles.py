"""Profiles for the tests of those who write them and of those who read them."""

import time
from types import SimpleNamespace
from typing import Any

from flowertune.profiler.reading import read_file
from flowertune.profiling.format import FILE
from flowertune.profiling.journal import recording
from flowertune.profiling.phases import Span

FLAT_ON, FLAT_OFF = {"profile.enabled": True}, {"profile.enabled": False}
# As much of the settings as the recorder looks at.
ON: Any = SimpleNamespace(profile=SimpleNamespace(enabled=True))
NOT_ON: Any = SimpleNamespace(profile=SimpleNamespace(enabled=False))


def span(who="server", phase="wait", number=1, at=0.0, seconds=1.0, **more) -> Span:
    """A span; by default the server waited for the first second of round 1."""
    return Span(who, phase, number, at, seconds, **more)


def written(folder) -> str:
    """Write a profile of two rounds; return the text of its file."""
    with recording(ON, folder, {"run": "77", "rounds": 2}) as profile:
        for number in (1, 2):
            profile.round = number
            with profile.phase("wait", nbytes=10):
                profile.enter([span("client 3", "train", number, tokens=50)])
    file = folder / FILE
    return file.read_text("utf-8") if file.is_file() else ""


def attempts_of(spans, tmp_path, seconds=100.0):
    """The profile of a run of ``seconds`` with these spans, written to a file and read back."""
    with recording(ON, tmp_path, {"run": "77", "rounds": 2, "clients-per-round": 2}) as profile:
        start = time.time()
        profile.enter([Span(**{**values_of(s), "at": start + s.at}) for s in spans])
    (attempt,) = read_file(tmp_path / FILE)
    attempt.end = attempt.start + seconds
    return [attempt]


def values_of(given: Span) -> dict:
    """The fields of a span by name."""
    return {name: getattr(given, name) for name in Span.__slots__}
