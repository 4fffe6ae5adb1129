"""The hub as a web application: the part of Flower Hub's API that flwr's CLI asks, and a page."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from challenges.hub import page
from challenges.hub.index import App, Index, read_index
from challenges.hub.middleware import TooLarge, too_large
from challenges.hub.render_cache import RenderCache, TooSlow
from challenges.hub.rendering import Kind, Order
from challenges.hub.repository import Release, TemplateRepository
from challenges.hub.upload_store import UploadStore

APP_ID = re.compile(r"@[A-Za-z0-9_.-]{1,64}/[A-Za-z0-9_.-]{1,64}")
VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}")
HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?")
MAX_QUESTION = 16 * 1024
MAX_UPLOAD = 12 * 1024 * 1024
BODY_SECONDS = 15
RELEASES_SECONDS = 5
PUBLISH_PATH = "/v1/hub/apps/publish"
MEDIA = {"zip": "application/zip", "fab": "application/octet-stream"}
HOW_TO_ASK = (
    'Send a JSON object with "app_id" ("@account/app") and "app_version" ("x.y.z", or null for '
    "the newest)."
)


def max_body(path: str) -> int:
    """How many bytes a request to a path may have."""
    return MAX_UPLOAD if path == PUBLISH_PATH else MAX_QUESTION


@dataclass
class Hub:
    """What the hub serves from: the template, what was rendered of it, and where uploads go."""

    repository: TemplateRepository
    cache: RenderCache
    source: str
    uploads: UploadStore | None = None

    def __post_init__(self) -> None:
        self._releases: tuple[float, list[Release]] | None = None
        self._indexes: dict[str, Index] = {}
        self._reading = asyncio.Lock()

    async def releases(self) -> list[Release]:
        """All releases, the newest first; git is asked every few seconds at most."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if self._releases is None or now - self._releases[0] > RELEASES_SECONDS:
                releases = await asyncio.to_thread(self.repository.releases)
                self._releases = (now, releases)
            return self._releases[1]

    async def index(self, release: Release) -> Index:
        """What a release holds; read once, as a commit does not change."""
        async with self._reading:
            if release.commit not in self._indexes:
                read = await asyncio.to_thread(read_index, self.repository, release)
                self._indexes[release.commit] = read
            return self._indexes[release.commit]

    async def find(self, app_id: str, version: str | None) -> tuple[App, Release]:
        """The app and release that are asked for.

        Raises
        ------
        HTTPException
            404, in the forms that flwr prints: a sentence where there is no such app, the versions
            there are where there is no such version.
        """
        versions: dict[str, tuple[App, Release]] = {}
        for release in await self.releases():
            index = await self.index(release)
            if app_id in index.apps:
                versions[release.version] = (index.apps[app_id], release)
        if not versions:
            raise HTTPException(404, f"There is no app {app_id} here.")
        wanted = version or next(iter(versions))
        if wanted not in versions:
            detail: Any = {
                "message": f"There is no version {wanted} of {app_id} here.",
                "available_app_versions": list(versions),
            }
            raise HTTPException(404, detail)
        return versions[wanted]

    async def packed(self, app: App, release: Release, kind: Kind) -> bytes:
        """An app, rendered and packed.

        Raises
        ------
        HTTPException
            503 if that takes too long just now.
        """
        order = Order(
            template=str(self.repository.path),
            tag=release.tag,
            answers=tuple(sorted(app.answers.items())),
            name=app.name,
            account=app.account,
            source=self.source,
            kind=kind,
        )
        try:
            return await self.cache.get(order)
        except TooSlow as error:
            detail = f"{app.app_id} is being rendered and is not ready yet; try again."
            raise HTTPException(503, detail, {"retry-after": "10"}) from error


def address_of(request: Request) -> str:
    """The hub's address as this client wrote it, such as https://hub.example.org."""
    host = request.headers.get("host", "")
    if not HOST.fullmatch(host):
        raise HTTPException(400, "The request has no valid Host header.")
    return f"{request.url.scheme}://{host}"


async def read_body(request: Request) -> bytes:
    """The request's body; 408 if it dawdles."""
    try:
        return await asyncio.wait_for(request.body(), BODY_SECONDS)
    except TimeoutError as error:
        raise HTTPException(408, f"The request took over {BODY_SECONDS} s to arrive.") from error


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


def endpoints(hub: Hub) -> list[Route]:
    """The hub's routes."""

    def fetch(kind: Kind) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> JSONResponse:
            app, release = await hub.find(*await read_question(request))
            await hub.packed(app, release, kind)
            request.state.log["version"] = release.version
            path = f"/v1/hub/files/{release.version}/{app.account}/{app.name}.{kind}"
            return JSONResponse({f"{kind}_url": address_of(request) + path})

        return endpoint

    async def file(request: Request) -> Response:
        path = request.path_params
        name, _, kind = path["file"].rpartition(".")
        version, app_id = path["version"], f"@{path['account']}/{name}"
        if kind not in MEDIA or not APP_ID.fullmatch(app_id) or not VERSION.fullmatch(version):
            raise HTTPException(404, "There is no such file.")
        app, release = await hub.find(app_id, version)
        content = await hub.packed(app, release, kind)
        headers = {
            "etag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            "content-disposition": f'attachment; filename="{app.name}-{version}.{kind}"',
        }
        return Response(content, media_type=MEDIA[kind], headers=headers)

    async def apps(request: Request) -> JSONResponse:
        newest = (await hub.releases())[0]
        index = await hub.index(newest)
        only_listed = request.query_params.get("tag") == "recommended"
        listed = [
            {"app_id": app.app_id, "version": newest.version, "rules": app.rules}
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
        kept = await asyncio.wait_for(hub.uploads.take(request), BODY_SECONDS * 4)
        request.state.log |= kept
        return JSONResponse(kept, 201)

    async def no_update(request: Request) -> JSONResponse:
        # flwr asks this address for news about flwr itself, too.
        return JSONResponse({"update_available": False})

    async def health(request: Request) -> JSONResponse:
        newest = (await hub.releases())[0]
        return JSONResponse({"status": "ok", "version": newest.version})

    async def index(request: Request) -> HTMLResponse:
        releases = await hub.releases()
        index = await hub.index(releases[0])
        versions = [release.version for release in releases]
        html = page.render(index, versions, address_of(request), hub.source)
        return HTMLResponse(html)

    async def style(request: Request) -> Response:
        return Response(page.style(), media_type="text/css")

    return [
        Route("/", index),
        Route("/style.css", style),
        Route("/health", health),
        Route("/v1/hub/apps", apps),
        Route("/v1/hub/fetch-zip", fetch("zip"), methods=["POST"]),
        Route("/v1/hub/fetch-fab", fetch("fab"), methods=["POST"]),
        Route("/v1/hub/files/{version}/{account}/{file}", file),
        Route(PUBLISH_PATH, publish, methods=["POST"]),
        Route("/v1/update-check/flwr", no_update, methods=["POST"]),
    ]


async def explain(request: Request, error: Exception) -> JSONResponse:
    """An error in the form that flwr reads: {"detail": …}."""
    if isinstance(error, TooLarge):
        return too_large(error.args[0])
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    return JSONResponse({"detail": "The hub failed; its log says why."}, 500)


def web_app(hub: Hub) -> Starlette:
    """The application, without its middleware."""
    handlers: dict[Any, Any] = {kind: explain for kind in (HTTPException, TooLarge, Exception)}
    return Starlette(routes=endpoints(hub), exception_handlers=handlers)
