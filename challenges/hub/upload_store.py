"""Take what `flwr app publish` sends: check it as Flower Hub would, and keep it in a folder."""

import asyncio
import hmac
import re
import shutil
import tempfile
import time
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_FILES = 1000
MAX_FILE_BYTES = 1024 * 1024
MAX_TOTAL_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 10
SUFFIXES = {".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"}
NAMES = {".gitignore", ".editorconfig", "LICENSE", "LICENSE.md"}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}")
PUBLISHER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class UploadStore:
    """A folder for uploads: one new folder for each, `<publisher>/<app>/<time>-…`.

    Parameters
    ----------
    folder : Path
        Where they go.
    token : str
        What an uploader has to show.
    """

    def __init__(self, folder: Path, token: str) -> None:
        self._folder = folder
        self._token = token

    async def take(self, request: Request) -> dict[str, Any]:
        """Check an upload and keep it; returns what was kept.

        Raises
        ------
        HTTPException
            401 without the token, 422 with a sentence for what is wrong with the files.
        """
        shown = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(shown, f"Bearer {self._token}".encode()):
            raise HTTPException(401, "The access token is not one of this hub's.")
        async with request.form(max_files=MAX_FILES, max_fields=10) as form:
            uploads = [item for item in form.getlist("files") if isinstance(item, UploadFile)]
            files = {upload.filename or "": await upload.read() for upload in uploads}
        if len(files) != len(uploads):
            raise HTTPException(422, "Two files of the upload have the same name.")
        publisher, name = check_upload(files)
        where = self._folder / publisher / name
        folder = await asyncio.to_thread(keep, files, where)
        return {"app_id": f"@{publisher}/{name}", "files": len(files), "kept": folder.name}


def check_upload(files: dict[str, bytes]) -> tuple[str, str]:
    """Publisher and name of an uploaded app, from its pyproject.toml.

    Parameters
    ----------
    files : dict[str, bytes]
        Path in the app, with slashes -> content.

    Raises
    ------
    HTTPException
        422 with a sentence that names the first file or property that is wrong.
    """
    for path, content in files.items():
        if problem := problem_with(path, content):
            raise HTTPException(422, f"{path[:200]!r} {problem}.")
    total = sum(map(len, files.values()))
    if total > MAX_TOTAL_BYTES:
        raise HTTPException(422, f"The app has {total:,} bytes, over {MAX_TOTAL_BYTES:,}.")
    try:
        project = tomllib.loads(files["pyproject.toml"].decode())
        publisher = project["tool"]["flwr"]["app"]["publisher"]
        name, description = project["project"]["name"], project["project"]["description"]
    except (KeyError, TypeError, ValueError) as error:
        raise HTTPException(
            422, "pyproject.toml has to name [project] name and description, and the publisher."
        ) from error
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        raise HTTPException(422, f"The app's name is {str(name)[:60]!r}; flwr does not take that.")
    if not (isinstance(publisher, str) and PUBLISHER.fullmatch(publisher)):
        raise HTTPException(
            422, f"The publisher is {str(publisher)[:60]!r}; use letters, digits, - and _."
        )
    if not isinstance(description, str) or not 0 < len(description) <= 200:
        raise HTTPException(422, "The description has to have 1 to 200 characters.")
    return publisher, name


def problem_with(path: str, content: bytes) -> str | None:
    """What is wrong with one file of an upload; None if nothing is."""
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or path.startswith("/") or "\\" in path:
        return "is no plain relative path"
    if ".." in parts or any(ord(sign) < 32 for sign in path) or len(path) > 400:
        return "is no plain relative path"
    if len(parts) - 1 > MAX_DEPTH:
        return f"lies deeper than {MAX_DEPTH} folders"
    if parts[-1] not in NAMES and PurePosixPath(path).suffix not in SUFFIXES:
        return "is of a type that is not taken"
    if len(content) > MAX_FILE_BYTES:
        return f"has {len(content):,} bytes, over {MAX_FILE_BYTES:,}"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "is not UTF-8"
    return None


def keep(files: dict[str, bytes], where: Path) -> Path:
    """Write an upload into a new folder in `where`, whole or not at all; returns the folder."""
    where.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=where))
    try:
        for path, content in files.items():
            target = scratch / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        return scratch.rename(where / f"{stamp}-{scratch.name.removeprefix('.incoming-')}")
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
