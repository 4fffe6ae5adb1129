"""Start the hub and stop it: the web server, its worker processes, its log."""

import asyncio
import contextlib
import logging
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from challenges.hub.api import Hub, max_body, web_app
from challenges.hub.middleware import JsonLines, Middleware, RateLimit
from challenges.hub.render_cache import RenderCache
from challenges.hub.rendering import pack
from challenges.hub.repository import copier_address, open_repository
from challenges.hub.upload_store import UploadStore
from challenges.hub.workers import Workers

HEADER_SECONDS = 10
RENDER_SECONDS = 60
SHUTDOWN_SECONDS = 10
RENDER_CACHE_BYTES = 256 * 1024 * 1024
CONNECTIONS = 1000
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """What `serve` was told; see its --help."""

    template: str
    host: str
    port: int
    public_url: str | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    proxy: str | None = None
    rate: float = 600
    workers: int = 2
    fetch_seconds: float = 300
    uploads: Path | None = None
    token: str | None = None


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for a request's headers, but not for ever."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        if self._waiting:
            self._waiting.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def serve(settings: Settings) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C); what is being served then is finished first.

    Raises
    ------
    HubError
        If the template cannot be served.
    """
    log = log_as_json()
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowertune-hub-")))
        repository = open_repository(settings.template, scratch, settings.fetch_seconds)
        workers = Workers(settings.workers)
        stack.callback(workers.shutdown, cancel_futures=True)
        source = copier_address(settings.public_url or repository.source)
        uploads = (
            UploadStore(settings.uploads, settings.token)
            if settings.uploads and settings.token
            else None
        )
        cache = RenderCache(pack, workers, RENDER_CACHE_BYTES, RENDER_SECONDS)
        app = web_app(Hub(repository, cache, source, uploads))
        config = uvicorn.Config(
            Middleware(app, max_body, RateLimit(settings.rate)),
            host=settings.host,
            port=settings.port,
            http=PatientProtocol,
            ws="none",
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            proxy_headers=settings.proxy is not None,
            forwarded_allow_ips=settings.proxy,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
            server_header=False,
            log_config=None,
            access_log=False,
        )
        versions = ", ".join(release.version for release in repository.releases())
        log.info("serving %s, versions %s", repository.source, versions)
        if settings.host not in LOOPBACK and source == str(repository.path):
            log.warning(
                "apps will name %s as their template, which is a folder of this machine; "
                "participants cannot run `copier update` (--public-url)",
                source,
            )
        # uvicorn raises the signal again once it has shut down; by then it has done its work.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server = uvicorn.Server(config)
        server.run()
        log.info("stopped")
    if not server.started:
        sys.exit(1)


def log_as_json() -> logging.Logger:
    """Let all logging go to stdout as JSON, one line a record; returns the hub's logger."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    return logging.getLogger("challenges.hub")
