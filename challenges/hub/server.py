"""Start the hub and stop it: the web server, its worker processes, its log."""

import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from challenges.hub import limits, log
from challenges.hub.address import Address
from challenges.hub.api import Hub, web_app
from challenges.hub.bundle_keys import Keys
from challenges.hub.bundle_store import BundleStore
from challenges.hub.catalog import Catalog, Down
from challenges.hub.middleware import Middleware, RateLimit
from challenges.hub.patience import PatientProtocol, allow_connections
from challenges.hub.render_cache import RenderCache
from challenges.hub.rendering import pack, warm_up
from challenges.hub.repository import HubError, open_repository
from challenges.hub.upload_store import UploadStore
from challenges.hub.workers import Workers

LOOPBACK = ("127.0.0.1", "::1", "localhost")
ANY = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Settings:
    """What `serve` was told; see its --help."""

    template: str = field(repr=False)
    host: str
    port: int
    public_url: str | None = field(default=None, repr=False)
    tls_cert: Path | None = None
    tls_key: Path | None = None
    proxy: str | None = None
    rate: float = 600
    workers: int = 2
    uploads: Path | None = None
    token: str | None = field(default=None, repr=False)
    site: Path | None = None
    bundles: Path | None = None
    bundle_keys: Path | None = None
    bundles_a_day: int = 3
    log_form: log.Form = "auto"


def serve(settings: Settings) -> None:
    """Serve until told to stop (SIGTERM or Ctrl-C); what is being served then is finished first.

    Raises
    ------
    HubError
        If the template cannot be served, or the address is taken.
    """
    said = log.set_up(settings.log_form)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowertune-hub-")))
        listening = stack.enter_context(_listen(settings.host, settings.port))
        repository = open_repository(Address.parse(settings.template), scratch)
        catalog = Catalog(repository)
        catalog.refresh()
        public = Address.parse(settings.public_url) if settings.public_url else None
        source = public.for_copier if public else repository.source
        # Renders leave nothing outside, even where their process is killed.
        os.environ["TMPDIR"] = str(scratch)
        workers = Workers(settings.workers, warm_up)
        stack.callback(workers.shutdown, cancel_futures=True)
        uploads = (
            UploadStore(settings.uploads, settings.token)
            if settings.uploads and settings.token
            else None
        )
        cache = RenderCache(pack, workers, limits.RENDER_CACHE_BYTES, limits.RENDER_SECONDS)
        bundles = None
        if settings.bundles and settings.bundle_keys:
            keys = Keys(settings.bundle_keys)
            said.info("taking bundles of %d keys, %d a day of each, into %s", len(keys.read()),
                      settings.bundles_a_day, settings.bundles)  # fmt: skip
            bundles = BundleStore(settings.bundles, keys, settings.bundles_a_day)
        app = web_app(Hub(catalog, cache, source, uploads, settings.site, bundles))
        PatientProtocol.held = allow_connections(limits.CONNECTIONS)
        config = uvicorn.Config(
            Middleware(app, limits.max_body, RateLimit(settings.rate), limits.REQUESTS),
            http=PatientProtocol,
            ws="none",
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            proxy_headers=settings.proxy is not None,
            forwarded_allow_ips=settings.proxy,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=limits.SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
            server_header=False,
            log_config=None,
            access_log=False,
        )
        _say_what_is_served(said, catalog)
        if settings.host not in LOOPBACK and source == str(repository.path):
            said.warning(
                "apps will name %s as their template, which is a folder of this machine; "
                "participants cannot run `copier update` (--public-url)",
                source,
            )
        # uvicorn raises the signal again once it has shut down; by then it has done its work.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        server = _Server(config, address_of(settings), settings.site)
        server.run([listening])
        said.info("stopped")
    if not server.started:
        sys.exit(1)


def address_of(settings: Settings) -> str:
    """The address to open in a browser of this machine."""
    scheme = "https" if settings.tls_cert else "http"
    host = "127.0.0.1" if settings.host in ANY else settings.host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


class _Server(uvicorn.Server):
    """A server that says where it is, once it is there."""

    def __init__(self, config: uvicorn.Config, address: str, site: Path | None) -> None:
        super().__init__(config)
        self._address = address
        self._site = site

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if not self.started:
            return
        said = logging.getLogger("challenges.hub")
        if self._site is not None:
            said.info("the board of %s is at %s/board/", self._site, self._address)
        said.info("open %s", self._address)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        # Python adds to what the system says; a name that is not found has a code of its own kind.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or error
        raise HubError(
            f"cannot listen on port {port} of {host} (--host, --port): {reason}."
        ) from error


def _say_what_is_served(said: logging.Logger, catalog: Catalog) -> None:
    try:
        served = [release for release, _ in catalog.served()]
    except Down:
        _, report = catalog.health()
        raise HubError("; ".join(report["problems"]) + " (--template).") from None
    what = "version" if len(served) == 1 else "versions"
    source = catalog.repository.source
    said.info("serving %s, %s %s", source, what, ", ".join(map(str, served)))
    if not served[0].tag:
        said.warning(
            "%s has no release: its newest commit is served, as %s; to release it, tag it, such as "
            "`git tag v%s`",
            source,
            served[0].version,
            served[0].version,
        )
