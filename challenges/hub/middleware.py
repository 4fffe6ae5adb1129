"""What stands before every request: limits, security headers, the access log."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACCESS = logging.getLogger("challenges.hub.access")
MAX_ADDRESSES = 10_000
CHUNK = 16 * 1024
SECURITY_HEADERS = {
    b"content-security-policy": b"default-src 'none'; style-src 'self'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


class TooLarge(Exception):
    """A request body is larger than allowed; its argument is how many bytes are."""


class RateLimit:
    """A token bucket for each address.

    Parameters
    ----------
    per_minute : float
        How many requests an address may make in a minute on average; as many at once. 0: no limit.
    clock : Callable[[], float]
        Seconds.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Take a token; returns 0 if there was one, else in how many seconds there will be."""
        if not self._size:
            return 0.0
        now = self._clock()
        tokens, then = self._buckets.pop(address, (self._size, now))
        tokens = min(self._size, tokens + (now - then) * self._size / 60)
        missing = 0.0 if tokens >= 1 else (1 - tokens) * 60 / self._size
        self._buckets[address] = (tokens if missing else tokens - 1, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return missing


class Middleware:
    """ASGI middleware around the hub.

    Parameters
    ----------
    app : ASGIApp
        The hub.
    max_body : Callable[[str], int]
        Path -> how many bytes a request to it may have.
    rate : RateLimit
        Who asks too often is told when to come again.
    requests : int
        How many may be in progress; /health is always answered.
    """

    def __init__(
        self, app: ASGIApp, max_body: Callable[[str], int], rate: RateLimit, requests: int
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._rate = rate
        self._requests = requests
        self._in_progress = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        seen = {"status": 0, "bytes": 0}

        async def noting_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen["status"] = message["status"]
                names = {name.lower() for name, _ in message["headers"]}
                extra = [pair for pair in SECURITY_HEADERS.items() if pair[0] not in names]
                message = {**message, "headers": [*message["headers"], *extra]}
            elif message["type"] == "http.response.body":
                seen["bytes"] += len(message.get("body", b""))
                message = await in_chunks(message, send)
            await send(message)

        self._in_progress += 1
        try:
            await self._guarded(scope, receive, noting_send)
        finally:
            self._in_progress -= 1
            ACCESS.info(
                "%s %s",
                scope["method"],
                scope["path"],
                extra={
                    "hub": {
                        "client": (scope.get("client") or ("",))[0],
                        "method": scope["method"],
                        "path": scope["path"],
                        **seen,
                        "ms": round((time.perf_counter() - started) * 1000, 1),
                        **scope.get("state", {}).get("log", {}),
                    }
                },
            )

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        wait = 0.0
        if scope["path"] != "/health":
            wait = self._rate.wait((scope.get("client") or ("",))[0])
            if self._in_progress > self._requests:
                busy = {"detail": "The hub is busy; try again in 10 s."}
                await JSONResponse(busy, 503, {"retry-after": "10"})(scope, receive, send)
                return
        if wait:
            seconds = str(int(wait) + 1)
            response = JSONResponse(
                {"detail": f"Too many requests from your address; try again in {seconds} s."},
                429,
                {"retry-after": seconds},
            )
            await response(scope, receive, send)
            return
        allowed = self._max_body(scope["path"])
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > allowed:
            await too_large(allowed)(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > allowed:
                raise TooLarge(allowed)
            return message

        scope.setdefault("state", {})["log"] = {}
        await self._app(scope, counting_receive, send)


async def in_chunks(message: Message, send: Send) -> Message:
    """Send all of a body but its last part, each part when the client has taken the ones before.

    As one piece it would count as sent as soon as it is in this process's memory.
    """
    body = message.get("body", b"")
    last = max(0, len(body) - 1) // CHUNK * CHUNK
    for start in range(0, last, CHUNK):
        part = body[start : start + CHUNK]
        await send({"type": message["type"], "body": part, "more_body": True})
    return {**message, "body": body[last:]}


def too_large(allowed: int) -> JSONResponse:
    """The answer to a request with too large a body."""
    detail = f"The request is too large; at most {allowed:,} bytes are taken here."
    return JSONResponse({"detail": detail}, 413, {"connection": "close"})
