"""Every version that the template has, as last read: what is served, and what is wrong with it.

Requests only look here; git is asked in the background, so that no request waits for it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from challenges.hub import page
from challenges.hub.index import App, Index, read_index
from challenges.hub.repository import HubError, Release, TemplateRepository

LOG = logging.getLogger("challenges.hub")
REST_SECONDS = 60


class Unknown(Exception):
    """There is no such app, or no such version of it; `versions` are those there are."""

    def __init__(self, message: str, versions: list[str]) -> None:
        super().__init__(message)
        self.versions = versions


class Down(Exception):
    """What is asked for cannot be served now; the message says why."""


@dataclass(frozen=True)
class _Fault:
    """Why a version is not served until a time; `app_id` is the app that could not be rendered."""

    until: float
    reason: str
    app_id: str | None


class Catalog:
    """The template's versions.

    A version stands for one commit as long as the hub runs: where its tag is moved, the commit that
    it stood for is served further, so that all apps of a version have the same rules, and the hub
    says so.

    Parameters
    ----------
    repository : TemplateRepository
        Where they come from.
    clock : Callable[[], float]
        Seconds.
    """

    def __init__(
        self, repository: TemplateRepository, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.repository = repository
        self._clock = clock
        self._releases: list[Release] = []
        self._indexes: dict[str, Index] = {}  # by commit, which does not change
        self._pinned: dict[str, Release] = {}
        self._moved: dict[str, str] = {}
        self._faults: dict[str, _Fault] = {}  # by commit
        self._repository_problem: str | None = None
        self._remote_problem: str | None = None

    def refresh(self) -> None:
        """Read what is new in the repository; what cannot be read is noted, not raised."""
        try:
            found = self.repository.releases()
        except HubError as error:
            if self._repository_problem is None:
                LOG.error("the template cannot be read: %s", error)
            self._repository_problem = "the template's repository cannot be read; the log says why"
            return
        self._repository_problem = None
        releases = [self._pin(release) for release in found]
        for release in releases:
            if release.commit not in self._indexes and not self._resting(release):
                self._read(release)
        self._releases = releases

    async def fetch(self) -> None:
        """Fetch what is new from the remote; a failure is noted: the known versions stay."""
        try:
            await self.repository.fetch()
        except (HubError, OSError) as error:
            if self._remote_problem is None:
                LOG.warning("the template's remote cannot be read: %s", error)
            self._remote_problem = "the template's remote cannot be read; the log says why"
        else:
            self._remote_problem = None

    def failed(self, release: Release, app_id: str) -> None:
        """Note that an app could not be rendered: its version gets another try in a minute."""
        self._note(release, f"{app_id} could not be rendered; the log says why", app_id)

    def worked(self, release: Release, app_id: str) -> None:
        """Note that an app could be rendered."""
        fault = self._faults.get(release.commit)
        if fault is not None and fault.app_id == app_id:
            del self._faults[release.commit]

    def served(self) -> list[tuple[Release, Index]]:
        """The versions that can be served, the newest first.

        Raises
        ------
        Down
            If there is none.
        """
        pairs = [
            (release, self._indexes[release.commit])
            for release in self._releases
            if release.commit in self._indexes and not self._resting(release)
        ]
        if not pairs:
            raise Down("No version can be served just now; the hub's log says why.")
        return pairs

    def find(self, app_id: str, version: str | None) -> tuple[App, Release]:
        """The app and release that are asked for; by default the newest that can be served.

        Raises
        ------
        Unknown, Down
        """
        known = False
        found: dict[str, tuple[App, Release]] = {}
        for release in self._releases:
            index = self._indexes.get(release.commit)
            if release.version == version and (index is None or self._resting(release)):
                raise Down(f"Version {version} cannot be served: {self._problem(release)}.")
            known = known or index is not None
            if index is not None and app_id in index.apps:
                found[release.version] = (index.apps[app_id], release)
        working = {key: pair for key, pair in found.items() if not self._resting(pair[1])}
        # Where any version can be read, one that cannot is no reason to believe in an app.
        if known and not found:
            raise Unknown(f"There is no app {app_id} here.", [])
        if not working:
            raise Down(f"No version of {app_id} can be served just now; the hub's log says why.")
        if version is None:
            return next(iter(working.values()))
        if version not in working:
            raise Unknown(f"There is no version {version} of {app_id} here.", list(working))
        return working[version]

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether anything can be served, and a report: the newest version, and what is wrong."""
        problems = [
            f"version {release.version} cannot be served: {self._problem(release)}"
            for release in self._releases
            if release.commit in self._faults or release.commit not in self._indexes
        ]
        problems += self._moved.values()
        problems += [note for note in (self._repository_problem, self._remote_problem) if note]
        wrong = {"problems": problems} if problems else {}
        try:
            newest = self.served()[0][0]
        except Down:
            return False, {"status": "down", **wrong}
        report = {
            "status": "degraded" if problems else "ok",
            "version": newest.version,
            "commit": newest.commit,
            "released": bool(newest.tag),
        }
        return True, {**report, **wrong}

    def _read(self, release: Release) -> None:
        try:
            index = read_index(self.repository, release)
            page.render(index, [release], "http://hub", self.repository.source)
        except Exception as error:  # whatever a release holds, the others go on
            LOG.error("version %s is broken: %s", release.version, error)
            known = isinstance(error, HubError)
            self._note(release, str(error) if known else "its facts cannot be shown on the page")
        else:
            self._indexes[release.commit] = index
            self._faults.pop(release.commit, None)

    def _pin(self, release: Release) -> Release:
        if not release.tag:
            return release
        first = self._pinned.setdefault(release.version, release)
        if first.commit == release.commit:
            self._moved.pop(release.version, None)
        elif release.version not in self._moved:
            self._moved[release.version] = (
                f"the tag {release.tag} was moved from {first.commit[:12]} to "
                f"{release.commit[:12]}; {first.commit[:12]} is served until the hub is restarted"
            )
            LOG.warning("%s", self._moved[release.version])
        return first

    def _note(self, release: Release, reason: str, app_id: str | None = None) -> None:
        self._faults[release.commit] = _Fault(self._clock() + REST_SECONDS, reason, app_id)

    def _resting(self, release: Release) -> bool:
        fault = self._faults.get(release.commit)
        return fault is not None and fault.until > self._clock()

    def _problem(self, release: Release) -> str:
        fault = self._faults.get(release.commit)
        return fault.reason if fault else "it is not read yet"
