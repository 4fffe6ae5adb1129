"""Time the phases of a run where they happen.

    with profile.phase("accumulate", nbytes=n):
        ...

Whoever has something to time asks ``profile_of`` for the profile and calls ``phase`` or ``add``;
with ``profile.enabled=false`` both do nothing. Names in use: plan, distribute, wait, transfer,
accumulate, write, evaluate, save on the server; load, train, serve on a client. Any other short
name works as well and gets a row of its own.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from flowertune.profiling.usage import Meter, vram_peak

SETTING = "profile.enabled"
SAMPLE_EVERY = 0.05  # seconds between two looks at the memory in use


@dataclass(slots=True)
class Span:
    """One phase, once: when (seconds since the epoch), how long, and what went through.

    ``nbytes`` and ``tokens`` may be set until the phase ends, where they are known only then.
    Peaks are those of the whole process while the phase lasted; ``read`` and ``written`` are what
    the process had read from and written to storage meanwhile. None: not known here.
    """

    phase: str
    round: int
    at: float
    seconds: float = 0.0
    nbytes: int = 0
    tokens: int = 0
    rss: int | None = None
    anon: int | None = None
    vram: int | None = None
    read: int | None = None
    written: int | None = None


class Profile:
    """The phases of one process; any thread may time some, and phases may lie in each other.

    A thread looks at the memory in use every ``SAMPLE_EVERY`` seconds until ``close``.

    Parameters
    ----------
    finished : Callable[[Profile], None] | None
        Called after each phase that ends, for whoever takes spans away in time.
    """

    enabled = True

    def __init__(self, finished: "Callable[[Profile], None] | None" = None) -> None:
        self.round = 0  # what phases that name no round belong to
        self.finished = finished
        self._meter = Meter()
        self._lock = threading.Lock()
        self._open: list[Span] = []
        self._done: list[Span] = []
        self._stop = threading.Event()
        # Wall time places a phase in the run; the steady clock measures it.
        self._epoch = time.time() - time.perf_counter()
        self._sampler = threading.Thread(target=self._sample, name="profile", daemon=True)
        self._sampler.start()

    @contextmanager
    def phase(
        self, name: str, nbytes: int = 0, tokens: int = 0, round: int | None = None
    ) -> Iterator[Span]:
        """Time what happens inside; an error inside ends the phase and goes on its way."""
        began = time.perf_counter()
        number = self.round if round is None else round
        span = Span(name, number, self._epoch + began, nbytes=nbytes, tokens=tokens)
        with self._lock:
            self._look(start_anew=True)
            self._open.append(span)
            self._look()
        before = self._meter.disk()
        try:
            yield span
        finally:
            span.seconds = time.perf_counter() - began
            after = self._meter.disk()
            if before is not None and after is not None:
                span.read, span.written = after.read - before.read, after.written - before.written
            with self._lock:
                self._look()
                self._open = [other for other in self._open if other is not span]
                self._done.append(span)
            self._tell()

    def add(
        self,
        name: str,
        seconds: float,
        nbytes: int = 0,
        tokens: int = 0,
        round: int | None = None,
    ) -> None:
        """Enter a phase that somebody else has timed, and that has just ended."""
        number = self.round if round is None else round
        at = self._epoch + time.perf_counter() - seconds
        with self._lock:
            self._done.append(Span(name, number, at, seconds, nbytes, tokens))
        self._tell()

    def take(self) -> list[Span]:
        """Return the phases that have ended since the last call."""
        with self._lock:
            done, self._done = self._done, []
        return done

    def waiting(self) -> int:
        """Return how many phases have ended and were not taken."""
        return len(self._done)

    def close(self) -> None:
        """Stop looking at the memory; to be called once, when nothing is timed any more."""
        self._stop.set()
        self._sampler.join()
        self._meter.close()

    def _tell(self) -> None:
        if self.finished is not None:
            self.finished(self)

    def _look(self, start_anew: bool = False) -> None:
        memory, vram = self._meter.memory(), vram_peak(start_anew)
        for span in self._open:
            if memory is not None:
                span.rss = max(span.rss or 0, memory.rss)
                if memory.anon is not None:
                    span.anon = max(span.anon or 0, memory.anon)
            if vram is not None:
                span.vram = max(span.vram or 0, vram)

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_EVERY):
            with self._lock:
                if self._open:
                    self._look()


class _NoSpan(AbstractContextManager["_NoSpan"]):
    """Stands in for a phase and for its span, and forgets what it is told."""

    def __exit__(self, *error: object) -> None:
        return None

    def __setattr__(self, name: str, value: object) -> None:
        return None


class _Off:
    """A profile that records nothing."""

    enabled = False
    _nothing = _NoSpan()

    def phase(
        self, name: str, nbytes: int = 0, tokens: int = 0, round: int | None = None
    ) -> _NoSpan:
        """Do nothing."""
        return self._nothing

    def add(
        self,
        name: str,
        seconds: float,
        nbytes: int = 0,
        tokens: int = 0,
        round: int | None = None,
    ) -> None:
        """Do nothing."""

    def __setattr__(self, name: str, value: object) -> None:
        return None


OFF = _Off()
# The profile of the message that a client is answering; clients may be threads of one process.
CURRENT: ContextVar[Profile | None] = ContextVar("profile of this message", default=None)


def profile_of(cfg: Mapping[str, Any], where: str) -> Profile | _Off:
    """Return the profile to time phases with, or ``OFF`` if the settings do not ask for one.

    Parameters
    ----------
    where : str
        "server": a new profile, which the caller closes (a run has one: ``session.profile``).
        "client": the profile of the message being answered, which goes back with its reply.
    """
    if not cfg.get(SETTING, False):
        return OFF
    if where == "server":
        return Profile()
    return CURRENT.get() or OFF
