"""The template's git repository: which releases it has, and what a file says in one of them."""

import re
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_RELEASE_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_GIT_SECONDS = 120


class HubError(Exception):
    """Something the organizer has to put right; the message is one sentence."""


@dataclass(frozen=True)
class Release:
    """A tag of the template: `tag` is v1.2.3, `version` is 1.2.3, `commit` what it stands for."""

    version: str
    tag: str
    commit: str


class TemplateRepository:
    """A checkout of the template whose tags are its releases.

    Parameters
    ----------
    path : Path
        The checkout.
    source : str
        What renders record as their origin: where `copier update` will look.
    fetch_seconds : float | None
        How often new tags are fetched from the checkout's remote; None for a local checkout, which
        has its tags already.
    """

    def __init__(self, path: Path, source: str, fetch_seconds: float | None = None) -> None:
        self.path = path
        self.source = source
        self._fetch_seconds = fetch_seconds
        self._fetched = time.monotonic()
        self._lock = threading.Lock()

    def releases(self) -> list[Release]:
        """All releases, the newest first.

        Raises
        ------
        HubError
            If git fails.
        """
        with self._lock:
            self._fetch_if_due()
            lines = self._git(
                "for-each-ref",
                "refs/tags",
                "--format=%(refname:short) %(objectname) %(*objectname)",
            )
        releases: dict[tuple[int, ...], Release] = {}
        for line in lines.splitlines():
            tag, *objects = line.split()
            if match := _RELEASE_TAG.fullmatch(tag):
                numbers = tuple(int(number) for number in match.groups())
                releases[numbers] = Release(".".join(map(str, numbers)), tag, objects[-1])
        return [releases[numbers] for numbers in sorted(releases, reverse=True)]

    def files(self, release: Release, folder: str) -> list[str]:
        """Names of the files in a folder of a release, without those in folders below it."""
        listed = self._git("ls-tree", "--name-only", release.commit, f"{folder}/")
        return [name.removeprefix(f"{folder}/") for name in listed.splitlines()]

    def read(self, release: Release, path: str) -> str:
        """The text of a file as it is in a release.

        Raises
        ------
        HubError
            If there is no such file in it.
        """
        return self._git("show", f"{release.commit}:{path}")

    def _fetch_if_due(self) -> None:
        if self._fetch_seconds is None or time.monotonic() - self._fetched < self._fetch_seconds:
            return
        self._fetched = time.monotonic()
        # A remote that is away for a while must not take the known releases with it.
        run_git(self.path, "fetch", "--quiet", "--tags", check=False)

    def _git(self, *arguments: str) -> str:
        return run_git(self.path, *arguments)


def run_git(folder: Path, *arguments: str, check: bool = True) -> str:
    """Run git in a folder and return what it prints.

    Raises
    ------
    HubError
        If git is not there, takes too long, or (with `check`) fails.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HubError(f"git could not be run in {folder}: {error}.") from error
    if check and done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise HubError(f"git {arguments[0]} failed in {folder}: {reason[0]}.")
    return done.stdout


def copier_address(address: str) -> str:
    """The address in the form in which Copier knows it for a git repository's, without credentials.

    >>> copier_address("https://example.org/template")
    'git+https://example.org/template'
    >>> copier_address("https://example.org/template.git")
    'https://example.org/template.git'
    >>> copier_address("https://user:token@example.org/template.git")
    'https://example.org/template.git'
    >>> copier_address("ssh://git:password@example.org/template.git")
    'ssh://git@example.org/template.git'
    """
    if re.match(r"(git\+)?ssh://", address):
        address = re.sub(r"^([^:/]+://[^/@:]*):[^/]*@", r"\1@", address)  # ssh needs its user
    else:
        address = re.sub(r"^([^:/]+://)[^/]*@", r"\1", address)
    known = (
        address.endswith(".git")
        or "://" not in address
        or address.startswith(("git://", "git+", "https://github.com/", "https://gitlab.com/"))
    )
    return address if known else f"git+{address}"


def open_repository(template: str, scratch: Path, fetch_seconds: float) -> TemplateRepository:
    """Open the template: a local checkout in place, anything else as a clone in `scratch`.

    Raises
    ------
    HubError
        If it is no template, or has no release.
    """
    local = Path(template).expanduser()
    if local.is_dir():
        path = local.resolve()
        repository = TemplateRepository(path, str(path))
    else:
        path = scratch / "template"
        run_git(scratch, "clone", "--quiet", template.removeprefix("git+"), str(path))
        repository = TemplateRepository(path, copier_address(template), fetch_seconds)
    if not (path / "copier.yml").is_file():
        raise HubError(f"{template} is no template: it holds no copier.yml (--template).")
    if not repository.releases():
        raise HubError(
            f"{template} has no releases to serve; tag one, such as `git tag v1.0.0` (--template)."
        )
    return repository
