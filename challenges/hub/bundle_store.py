"""Take bundles: with a key, so many a day, verified in a process of its own, kept whole."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from challenges.hub import limits
from challenges.hub.bundle_keys import Keys
from challenges.hub.bundle_verifier import Verdict, verify_apart
from flowertune.base.files import read_json, replace_file, write_atomically, write_json

_COUNTS = ".attempts.json"
_INCOMING = ".incoming-"
Verifier = Callable[[Path], Awaitable[Verdict]]


class BundleStore:
    """A folder for bundles that are VALID: `<owner>/<time>-<digest>.zip`, with a report beside it.

    Parameters
    ----------
    folder : Path
        Where they go.
    keys : Keys
        Who may upload.
    a_day : int
        How many bundles of a key are verified in a day (UTC), VALID or not.
    verify : Verifier
        Verifies a file.
    clock : Callable[[], datetime]
        The time, in UTC.
    """

    def __init__(
        self,
        folder: Path,
        keys: Keys,
        a_day: int,
        verify: Verifier = verify_apart,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._folder, self._keys, self._a_day = folder, keys, a_day
        self._verify, self._clock = verify, clock
        self._uploading: set[str] = set()
        self._one = asyncio.Lock()  # one is verified at a time
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{_INCOMING}*"):
            left.unlink()  # an upload that a kill interrupted

    async def take(self, request: Request) -> dict[str, Any]:
        """Take the bundle that is the request's body; return what was found and kept.

        Raises
        ------
        HTTPException
            401 without a key, 429 where it was used too often today or is in use, 503 where too
            much is going on or the disk is full, 422 with the findings for an INVALID bundle, 409
            for one that was kept before.
        """
        owner = self._owner(request)
        request.state.log |= {"key": owner}
        if owner in self._uploading:
            raise HTTPException(429, "This key is in use: send one bundle at a time.")
        if len(self._uploading) >= limits.BUNDLES_AT_ONCE:
            raise HTTPException(503, "Others are uploading; try again in a minute.",
                                {"retry-after": "60"})  # fmt: skip
        self._uploading.add(owner)
        try:
            self._left(owner)
            self._room()
            return await self._taken(owner, request)
        finally:
            self._uploading.discard(owner)

    def _owner(self, request: Request) -> str:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        owner = self._keys.owner(key.strip()) if scheme.lower() == "bearer" else None
        if owner is None:
            raise HTTPException(401, "The key is not one that this hub's organizer gave out.")
        return owner

    def _left(self, owner: str) -> int:
        left = self._a_day - self._counts().get(owner, 0)
        if left <= 0:
            raise HTTPException(
                429, f"{self._a_day} bundles of this key were verified today; come again tomorrow "
                "(UTC).",
            )  # fmt: skip
        return left

    def _room(self) -> None:
        if shutil.disk_usage(self._folder).free < 2 * limits.MAX_BUNDLE:
            raise HTTPException(503, "The hub's disk is full; tell its organizer.")

    def _counts(self) -> dict[str, int]:
        body = read_json(self._folder / _COUNTS) or {}
        today = self._clock().date().isoformat()
        return dict(body["counts"]) if body.get("day") == today else {}

    def _count(self, owner: str) -> None:
        counts = self._counts()
        counts[owner] = counts.get(owner, 0) + 1
        body = {"day": self._clock().date().isoformat(), "counts": counts}
        write_json(self._folder / _COUNTS, body)

    async def _taken(self, owner: str, request: Request) -> dict[str, Any]:
        handle, name = tempfile.mkstemp(prefix=_INCOMING, suffix=".zip", dir=self._folder)
        incoming = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                async for piece in request.stream():
                    file.write(piece)
            async with self._one:
                self._left(owner)
                self._count(owner)  # before it is verified: a bundle that kills the hub counts, too
                verdict = await self._verify(incoming)
                return await asyncio.to_thread(self._kept, owner, incoming, verdict)
        finally:
            with suppress(FileNotFoundError):
                incoming.unlink()

    def _kept(self, owner: str, incoming: Path, verdict: Verdict) -> dict[str, Any]:
        report = verdict.report
        if report is None:
            raise HTTPException(500, f"The bundle could not be verified: {verdict.why}.")
        if not report["valid"]:
            detail: Any = {"message": "The bundle is INVALID.", "findings": report["findings"]}
            raise HTTPException(422, detail)
        digest = report["digest"]
        if any(self._folder.glob(f"*/*-{digest[:24]}.zip")):
            raise HTTPException(409, "This bundle is kept already.")
        stamp = self._clock().strftime("%Y%m%dT%H%M%SZ")
        target = self._folder / owner / f"{stamp}-{digest[:24]}.zip"
        target.parent.mkdir(exist_ok=True)
        # The report first: a bundle that is there is there with it.
        write_atomically(target.with_suffix(".json"), json.dumps(report, indent=2) + "\n")
        replace_file(incoming, target)
        return {
            "valid": True,
            "tier": report["tier"],
            "digest": digest,
            "kept": target.name,
            "findings": report["findings"],
            "left-today": self._a_day - self._counts().get(owner, 0),
        }
