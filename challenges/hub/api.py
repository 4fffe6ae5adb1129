"""The hub as a web application: the part of Flower Hub's API that flwr's CLI asks, and a page."""

import asyncio
import hashlib
import ipaddress
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from challenges.hub import limits, page
from challenges.hub.board_files import PATH as BOARD
from challenges.hub.board_files import BoardFiles
from challenges.hub.bundle_store import BundleStore
from challenges.hub.catalog import Catalog, Down, Unknown
from challenges.hub.index import App, Index
from challenges.hub.middleware import TooLarge, too_large
from challenges.hub.render_cache import RenderCache, TooSlow
from challenges.hub.rendering import Kind, Order
from challenges.hub.repository import Release
from challenges.hub.upload_store import UploadStore

APP_ID = re.compile(r"@[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}")
VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
HOST = re.compile(
    r"(?:(?P<name>[\w-]+(?:\.[\w-]+)*\.?)|\[(?P<ipv6>.+)\])(?::(?P<port>\d{1,5}))?", re.A
)
LOG = logging.getLogger("challenges.hub")
MEDIA = {"zip": "application/zip", "fab": "application/octet-stream"}
HOW_TO_ASK = (
    'Send a JSON object with "app_id" ("@account/app") and "app_version" ("x.y.z", or null for '
    "the newest)."
)


@dataclass
class Hub:
    """What the hub serves from: catalog, renders, the board's folder; and where uploads go."""

    catalog: Catalog
    cache: RenderCache
    source: str
    uploads: UploadStore | None = None
    site: Path | None = None
    bundles: BundleStore | None = None

    async def packed(
        self, app_id: str, version: str | None, kind: Kind
    ) -> tuple[App, Release, bytes]:
        """An app, rendered and packed; where none is asked for, of the newest version that works.

        Raises
        ------
        HTTPException
            404, in the forms that flwr prints: a sentence where there is no such app, the versions
            there are where there is no such version. 503 if it cannot be had just now.
        """
        while True:
            try:
                app, release = self.catalog.find(app_id, version)
            except Down as error:
                raise HTTPException(503, str(error), {"retry-after": "60"}) from error
            except Unknown as error:
                detail: Any = str(error)
                if error.versions:
                    detail = {"message": detail, "available_app_versions": error.versions}
                raise HTTPException(404, detail) from error
            try:
                packed = await self.cache.get(self._order(app, release, kind))
            except TooSlow as error:
                late = f"{app.app_id} is being rendered and is not ready yet; try again."
                raise HTTPException(503, late, {"retry-after": "10"}) from error
            except Exception as error:
                LOG.error("%s of %s could not be rendered: %s", app.app_id, release, error)
                self.catalog.failed(release, app.app_id)
            else:
                self.catalog.worked(release, app.app_id)
                return app, release, packed

    def _order(self, app: App, release: Release, kind: Kind) -> Order:
        return Order(
            template=str(self.catalog.repository.path),
            commit=release.commit,
            tag=release.tag,
            answers=tuple(sorted(app.answers.items())),
            name=app.name,
            account=app.account,
            source=self.source,
            kind=kind,
        )

    @asynccontextmanager
    async def reading(self, _: Starlette) -> AsyncIterator[None]:
        """Keep the catalog up to date as long as the server runs."""
        await asyncio.to_thread(self.catalog.refresh)
        tasks = [asyncio.create_task(self._keep_reading())]
        if self.catalog.repository.remote is not None:
            tasks.append(asyncio.create_task(self._keep_fetching()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(limits.RELEASES_SECONDS)
            await asyncio.to_thread(self.catalog.refresh)

    async def _keep_fetching(self) -> None:
        while True:
            await asyncio.sleep(limits.FETCH_SECONDS)
            await self.catalog.fetch()


def address_of(request: Request) -> str:
    """The hub's address as this client wrote it, such as https://hub.example.org."""
    host = request.headers.get("host", "")
    if not _is_host(host):
        raise HTTPException(400, "The request has no valid Host header.")
    return f"{request.url.scheme}://{host}"


def _is_host(text: str) -> bool:
    match = HOST.fullmatch(text)
    if match is None or len(match["name"] or "") > 253:
        return False
    if match["ipv6"] and not _is_ipv6(match["ipv6"]):
        return False
    return match["port"] is None or 0 < int(match["port"]) < 65536


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


async def read_body(request: Request) -> bytes:
    """The request's body; 408 if it dawdles."""
    try:
        return await asyncio.wait_for(request.body(), limits.BODY_SECONDS)
    except TimeoutError as error:
        raise too_late(limits.BODY_SECONDS) from error


def too_late(seconds: float) -> HTTPException:
    """The answer to a request whose body dawdles."""
    return HTTPException(
        408, f"The request took over {seconds:g} s to arrive.", {"connection": "close"}
    )


async def read_question(request: Request) -> tuple[str, str | None]:
    """App id and version that a client asks for; 422 if the request is malformed."""
    try:
        question = json.loads(await read_body(request))
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"The request is no JSON. {HOW_TO_ASK}") from error
    if not isinstance(question, dict):
        raise HTTPException(422, f"The request is no JSON object. {HOW_TO_ASK}")
    app_id, version = question.get("app_id"), question.get("app_version")
    request.state.log |= {
        "app_id": str(app_id)[:140],
        "flwr": str(question.get("flwr_version"))[:32],
    }
    if not isinstance(app_id, str) or not APP_ID.fullmatch(app_id):
        raise HTTPException(422, f"app_id is {str(app_id)[:140]!r}. {HOW_TO_ASK}")
    if version is not None and not (isinstance(version, str) and VERSION.fullmatch(version)):
        raise HTTPException(422, f"app_version is {str(version)[:40]!r}. {HOW_TO_ASK}")
    return app_id, version


def endpoints(hub: Hub) -> list[Route | Mount]:
    """The hub's routes."""

    def newest_served() -> tuple[Release, Index]:
        try:
            return hub.catalog.served()[0]
        except Down as error:
            raise HTTPException(503, str(error), {"retry-after": "60"}) from error

    def fetch(kind: Kind) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> JSONResponse:
            address = address_of(request)
            app, release, _ = await hub.packed(*await read_question(request), kind)
            request.state.log |= {"version": release.version, "commit": release.commit[:12]}
            path = f"/v1/hub/files/{release.version}/{app.account}/{app.name}.{kind}"
            return JSONResponse({f"{kind}_url": address + path})

        return endpoint

    async def file(request: Request) -> Response:
        path = request.path_params
        name, _, kind = path["file"].rpartition(".")
        version, app_id = path["version"], f"@{path['account']}/{name}"
        if kind not in MEDIA or not APP_ID.fullmatch(app_id) or not VERSION.fullmatch(version):
            raise HTTPException(404, "There is no such file.")
        app, _, content = await hub.packed(app_id, version, kind)
        headers = {
            "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            "content-disposition": f'attachment; filename="{app.name}-{version}.{kind}"',
        }
        return Response(content, media_type=MEDIA[kind], headers=headers)

    async def apps(request: Request) -> JSONResponse:
        newest, index = newest_served()
        only_listed = request.query_params.get("tag") == "recommended"
        listed = [
            {
                "app_id": app.app_id,
                "version": newest.version,
                "commit": newest.commit,
                "rules": app.rules,
            }
            for app in index.apps.values()
            if app.listed or not only_listed
        ]
        return JSONResponse({"apps": listed})

    async def publish(request: Request) -> JSONResponse:
        if hub.uploads is None:
            raise HTTPException(
                403,
                "This hub takes no uploads. To publish on Flower Hub, unset "
                "FLWR_SUPERGRID_API_URL and try again.",
            )
        try:
            kept = await asyncio.wait_for(hub.uploads.take(request), limits.UPLOAD_SECONDS)
        except TimeoutError as error:
            raise too_late(limits.UPLOAD_SECONDS) from error
        request.state.log |= kept
        return JSONResponse(kept, 201)

    async def submit(request: Request) -> JSONResponse:
        if hub.bundles is None:
            raise HTTPException(403, "This hub takes no bundles; ask its organizer where to send.")
        try:
            taken = await asyncio.wait_for(
                hub.bundles.take(request), limits.BUNDLE_SECONDS + 2 * limits.VERIFY_SECONDS
            )
        except TimeoutError as error:
            raise too_late(limits.BUNDLE_SECONDS) from error
        request.state.log |= {"kept": taken["kept"]}
        return JSONResponse(taken, 201)

    async def to_board(request: Request) -> Response:
        return RedirectResponse(f"{BOARD}/", 308)

    async def no_update(request: Request) -> JSONResponse:
        # flwr asks this address for news about flwr itself, too.
        return JSONResponse({"update_available": False})

    async def health(request: Request) -> JSONResponse:
        well, report = hub.catalog.health()
        return JSONResponse(report, 200 if well else 503)

    async def index(request: Request) -> HTMLResponse:
        _, newest = newest_served()
        releases = [release for release, _ in hub.catalog.served()]
        return HTMLResponse(
            page.render(newest, releases, address_of(request), hub.source, hub.site is not None)
        )

    async def style(request: Request) -> Response:
        return Response(page.style(), media_type="text/css")

    board: list[Route | Mount] = []
    if hub.site is not None:
        files = BoardFiles(directory=hub.site, html=True, check_dir=False)
        board = [Route(BOARD, to_board), Mount(BOARD, files)]
    return [
        Route("/", index),
        Route("/style.css", style),
        Route("/health", health),
        Route("/v1/hub/apps", apps),
        Route("/v1/hub/fetch-zip", fetch("zip"), methods=["POST"]),
        Route("/v1/hub/fetch-fab", fetch("fab"), methods=["POST"]),
        Route("/v1/hub/files/{version}/{account}/{file}", file),
        Route(limits.PUBLISH_PATH, publish, methods=["POST"]),
        Route(limits.BUNDLES_PATH, submit, methods=["POST"]),
        Route("/v1/update-check/flwr", no_update, methods=["POST"]),
        *board,
    ]


async def explain(request: Request, error: Exception) -> JSONResponse:
    """An error in the form that flwr reads: {"detail": …}."""
    if isinstance(error, TooLarge):
        return too_large(error.args[0])
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"detail": "You hung up."}, 400)  # for the log: nobody reads it
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    return JSONResponse({"detail": "The hub failed; its log says why."}, 500)


def web_app(hub: Hub) -> Starlette:
    """The application, without its middleware."""
    kinds = (HTTPException, TooLarge, ClientDisconnect, Exception)
    handlers: dict[Any, Any] = {kind: explain for kind in kinds}
    return Starlette(routes=endpoints(hub), exception_handlers=handlers, lifespan=hub.reading)
