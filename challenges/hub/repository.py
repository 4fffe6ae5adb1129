"""The template's git repository: which releases it has, and what a file says in one of them."""

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import yaml

from challenges.hub.address import Address

_RELEASE_TAG = re.compile(r"v?(\d+)\.(\d+)\.(\d+)")
_GIT_SECONDS = 120


class HubError(Exception):
    """Something the organizer has to put right; the message is one sentence."""


@dataclass(frozen=True)
class Release:
    """A version of the template.

    Attributes
    ----------
    version : str
        Such as 1.2.3.
    tag : str
        Such as v1.2.3; empty where nothing was released yet and this is the newest commit.
    commit : str
        What is served: a tag can be moved, a commit cannot.
    """

    version: str
    tag: str
    commit: str

    def __str__(self) -> str:
        return f"{self.version} (commit {self.commit[:12]}{'' if self.tag else ', not released'})"


class TemplateRepository:
    """A checkout of the template whose tags are its releases.

    Parameters
    ----------
    path : Path
        The checkout.
    source : str
        What renders record as their origin: where `copier update` will look.
    remote : Address | None
        Where the checkout was cloned from, if it is this process's own clone.
    """

    def __init__(self, path: Path, source: str, remote: Address | None = None) -> None:
        self.path = path
        self.source = source
        self.remote = remote

    def releases(self) -> list[Release]:
        """All releases, the newest first; of a repository without any, its newest commit.

        Raises
        ------
        HubError
            If git fails, or there is no commit.
        """
        lines = self._git(
            "for-each-ref", "refs/tags", "--format=%(refname:short) %(objectname) %(*objectname)"
        )
        releases: dict[tuple[int, ...], Release] = {}
        for line in lines.splitlines():
            tag, *objects = line.split()
            if match := _RELEASE_TAG.fullmatch(tag):
                numbers = tuple(int(number) for number in match.groups())
                releases[numbers] = Release(".".join(map(str, numbers)), tag, objects[-1])
        tagged = [releases[numbers] for numbers in sorted(releases, reverse=True)]
        return tagged or [self._unreleased()]

    def read(self, release: Release, path: str) -> str:
        """The text of a file as it is in a release.

        Raises
        ------
        HubError
            If there is no such file in it.
        """
        return self._git("show", f"{release.commit}:{path}")

    async def fetch(self) -> None:
        """Fetch what is new from the remote, moved tags included.

        Raises
        ------
        HubError
            If that fails, or takes too long.
        """
        if self.remote is None:
            return
        # What a moved tag stood for is still served, so it must not be collected.
        arguments = ["-c", "gc.auto=0", "fetch", "--quiet", "--tags", "--force", "origin"]
        child = await asyncio.create_subprocess_exec(
            *("git", "-C", str(self.path), *arguments),
            env=_environment(self.remote),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await asyncio.wait_for(child.communicate(), _GIT_SECONDS)
        except TimeoutError as error:
            raise HubError(f"git fetch took over {_GIT_SECONDS} s.") from error
        finally:
            if child.returncode is None:
                child.kill()
        if child.returncode != 0:
            raise HubError(f"git fetch failed: {_reason(said.decode(errors='replace'))}.")

    def _unreleased(self) -> Release:
        head = "HEAD" if self.remote is None else "refs/remotes/origin/HEAD"
        try:
            commit = self._git("rev-parse", "--verify", "--quiet", f"{head}^{{commit}}").strip()
        except HubError as error:
            raise HubError(f"{self.source} has no commit to serve (--template).") from error
        unknown = Release("0.0.0", "", commit)
        try:
            questions = yaml.safe_load(self.read(unknown, "copier.yml"))
            version = str(questions["template_version"]["default"])
        except (HubError, yaml.YAMLError, KeyError, TypeError):
            return unknown
        match = _RELEASE_TAG.fullmatch(version)
        return Release(".".join(match.groups()), "", commit) if match else unknown

    def _git(self, *arguments: str) -> str:
        return run_git(self.path, *arguments)


def run_git(folder: Path, *arguments: str, remote: Address | None = None) -> str:
    """Run git in a folder and return what it prints; it never asks anybody for a password.

    Raises
    ------
    HubError
        If git is not there, takes too long or fails.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            env=_environment(remote),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HubError(f"git {arguments[0]} took over {_GIT_SECONDS} s in {folder}.") from error
    except OSError as error:
        raise HubError(f"git could not be run in {folder}: {error}.") from error
    if done.returncode != 0:
        raise HubError(f"git {arguments[0]} failed in {folder}: {_reason(done.stderr)}.")
    return done.stdout


def _environment(remote: Address | None) -> dict[str, str]:
    batch = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -o BatchMode=yes"}
    return batch | dict(os.environ) | {"LC_ALL": "C"} | (remote.environment() if remote else {})


def _reason(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("fatal:")]
    return (fatal or lines[-1:] or ["no reason given"])[0].rstrip(".")


def open_repository(template: Address, scratch: Path) -> TemplateRepository:
    """Open the template: a local checkout in place, anything else as a clone in `scratch`.

    Raises
    ------
    HubError
        If it is no template, or has nothing to serve.
    """
    local = Path(template.url).expanduser()
    if local.is_dir():
        path = local.resolve()
        repository = TemplateRepository(path, str(path))
        try:
            root = run_git(path, "rev-parse", "--show-toplevel").rstrip("\n")
        except HubError as error:
            raise HubError(f"{local} is no git repository (--template): {error}") from error
        if Path(root).resolve() != path:
            raise HubError(f"{local} is a folder of the git repository {root} (--template).")
    else:
        path = scratch / "template"
        clone = ("clone", "--quiet", "--", template.for_git, str(path))
        run_git(scratch, *clone, remote=template)
        repository = TemplateRepository(path, template.for_copier, template)
    releases = repository.releases()
    for release in releases:
        try:
            repository.read(release, "copier.yml")
            return repository
        except HubError:
            continue
    raise HubError(f"{template.url} is no template: it holds no copier.yml (--template).")
