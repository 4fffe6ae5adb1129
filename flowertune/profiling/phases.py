"""Time the phases of a run where they happen.

    with profile.phase("accumulate", nbytes=n):
        ...

``profile_of`` returns the profile; with ``profile.enabled=false`` its ``phase`` and ``add`` do
nothing. Names in use: plan, distribute, wait, transfer, accumulate, write, evaluate, save on the
server; load, train, serve on a client. Any other short name works too and gets a row of its own.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from flowertune.config.settings import Settings
from flowertune.profiling.usage import Meter, vram_peak

SETTING = "profile.enabled"
SAMPLE_EVERY = 0.05  # seconds between two looks at the memory in use
KEEP_EVERY = 5.0  # seconds; a killed process loses the phases of at most this time


@dataclass(slots=True)
class Span:
    """One phase: its owner, start (seconds since the epoch), duration, bytes and tokens.

    ``nbytes`` and ``tokens`` may be set until the phase ends. ``rss``, ``anon`` and ``vram`` are
    peaks of the whole process during the phase; ``read`` and ``written`` are the bytes it read from
    and wrote to storage meanwhile. None: unknown.

    Many spans of the same phase are kept as one: ``seconds`` is then the sum of ``count`` times,
    ``longest`` the longest of them, and ``spread`` their histogram (see ``records``).
    """

    who: str
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
    count: int = 1
    longest: float | None = None
    spread: dict[int, int] | None = None

    @property
    def max(self) -> float:
        """The longest time, in seconds."""
        return self.seconds if self.longest is None else self.longest

    @property
    def until(self) -> float:
        """When it ended; of several in one, when they would have ended without pauses."""
        return self.at + self.seconds


class Profile:
    """The phases of one process; any thread may time phases, and phases may be nested.

    A thread samples the memory in use every ``SAMPLE_EVERY`` seconds until ``close``.

    Parameters
    ----------
    who : str
        The owner of the phases: "server", or empty for a client, which the server names.
    keep : Callable[[list[Span]], None] | None
        Called by that thread with the phases that have ended, every ``KEEP_EVERY`` seconds.
    """

    enabled = True

    def __init__(
        self, who: str = "server", keep: Callable[[list[Span]], None] | None = None
    ) -> None:
        self.who, self._keep = who, keep
        self.round = 0  # what phases that name no round belong to
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
        """Time the block; an error in it ends the phase and is raised as usual."""
        began = time.perf_counter()
        number = self.round if round is None else round
        span = Span(self.who, name, number, self._epoch + began, nbytes=nbytes, tokens=tokens)
        with self._lock:
            self._look(reset_vram=True)
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

    def add(
        self,
        name: str,
        seconds: float,
        nbytes: int = 0,
        tokens: int = 0,
        round: int | None = None,
        ended: float | None = None,
    ) -> None:
        """Add a phase that was timed elsewhere.

        It ended just now, or at ``ended`` (a time of ``time.perf_counter``).
        """
        number = self.round if round is None else round
        at = self._epoch + (time.perf_counter() if ended is None else ended) - seconds
        self.enter([Span(self.who, name, number, at, seconds, nbytes, tokens)])

    def enter(self, spans: Iterable[Span]) -> None:
        """Add phases that were recorded elsewhere."""
        with self._lock:
            self._done.extend(spans)

    def take(self) -> list[Span]:
        """Return the phases that have ended since the last call."""
        with self._lock:
            done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Stop sampling, and hand over the remaining phases; to be called once, at the end."""
        self._stop.set()
        self._sampler.join()
        self._hand_over()
        self._meter.close()

    def _hand_over(self) -> None:
        if self._keep is not None and (spans := self.take()):
            self._keep(spans)

    def _look(self, reset_vram: bool = False) -> None:
        memory, vram = self._meter.memory(), vram_peak(reset_vram)
        for span in self._open:
            if memory is not None:
                span.rss = max(span.rss or 0, memory.rss)
                if memory.anon is not None:
                    span.anon = max(span.anon or 0, memory.anon)
            if vram is not None:
                span.vram = max(span.vram or 0, vram)

    def _sample(self) -> None:
        handed_over = time.monotonic()
        while not self._stop.wait(SAMPLE_EVERY):
            with self._lock:
                if self._open:
                    self._look()
            if time.monotonic() - handed_over >= KEEP_EVERY:
                self._hand_over()
                handed_over = time.monotonic()


class _NoSpan(AbstractContextManager["_NoSpan"]):
    """Replaces a phase and its span; what is set on it is ignored."""

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
        ended: float | None = None,
    ) -> None:
        """Do nothing."""

    def enter(self, spans: Iterable[Span]) -> None:
        """Do nothing."""

    def __setattr__(self, name: str, value: object) -> None:
        return None


OFF = _Off()
AnyProfile = Profile | _Off
AnySpan = Span | _NoSpan
# The profile of the message that a client is answering; clients may share a process.
CURRENT: ContextVar[Profile | None] = ContextVar("profile of this message", default=None)


def profile_of(cfg: Settings, where: str = "client") -> AnyProfile:
    """Return the profile to time phases with, or ``OFF`` if the settings do not ask for one.

    Parameters
    ----------
    where : str
        "client": the profile of the message being answered, which is sent with its reply.
        "server": a new profile, which the caller closes (that of a run is ``run.profile``).
    """
    if not cfg.profile.enabled:
        return OFF
    if where == "server":
        return Profile()
    return CURRENT.get() or OFF
