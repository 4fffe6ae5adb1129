"""A connection that waits for its client, but not for ever, and gives way in a crowd."""

import asyncio
import resource
import time
from typing import ClassVar, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from challenges.hub import limits

LOOK_SECONDS = 1.0
OTHER_FILES = 100  # what the hub has open beside its connections

Phase = Literal["headers", "body", "answer"]


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that drops who is slow: in asking, in sending a body, in reading the answer.

    Where there are more connections than are held, the one that was waited for longest goes, so
    that a newcomer is always served.
    """

    held: ClassVar[int] = limits.CONNECTIONS
    _phase: Phase | None = None
    _since = 0.0
    _looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look at the client now and then."""
        super().connection_made(transport)
        self._note(time.monotonic())
        self._look_later()
        if len(self.connections) > self.held:
            self._make_room()

    def on_response_complete(self) -> None:
        """The next request has a time of its own."""
        self._phase = None
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        if self._looking:
            self._looking.cancel()
        super().connection_lost(exc)

    def waits_for(self) -> Phase | None:
        """What the client is to do next; None while it waits for the hub."""
        in_progress = self.cycle is not None and not self.cycle.response_complete
        if in_progress and self.cycle.response_started:
            return "answer"  # answers are begun when the whole of them is there
        if not in_progress and self.transport.get_write_buffer_size():
            return "answer"
        if self.conn.their_state is h11.SEND_BODY:
            return "body"
        return None if in_progress else "headers"

    def waited(self, now: float) -> float:
        """Seconds since the client is waited for; 0 while it waits for the hub."""
        self._note(now)
        return now - self._since if self._phase else 0.0

    def _note(self, now: float) -> None:
        phase = self.waits_for()
        if phase != self._phase:
            self._phase, self._since = phase, now

    def _look_later(self) -> None:
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        seconds = self.waited(time.monotonic())
        if self._phase and seconds > self._limit(self._phase):
            self.transport.abort()  # to close it would wait until the client has read everything
        else:
            self._look_later()

    def _limit(self, phase: Phase) -> float:
        if phase == "body":
            return limits.body_seconds(self.scope["path"])
        return limits.ANSWER_SECONDS if phase == "answer" else limits.HEADER_SECONDS

    def _make_room(self) -> None:
        now = time.monotonic()
        waiting = [
            (other.waited(now), other)
            for other in self.connections
            if isinstance(other, PatientProtocol)
            and other is not self
            and other.waits_for()
            and not other.transport.is_closing()
        ]
        _, slowest = max(waiting, key=lambda pair: pair[0], default=(0.0, self))
        slowest.transport.abort()


def allow_connections(wanted: int) -> int:
    """Let this process have so many connections; returns how many the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    if soft != resource.RLIM_INFINITY and soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return max(1, files - OTHER_FILES)
