"""Compare the library that an app asks for with the one that is installed."""

import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from packaging.requirements import InvalidRequirement, Requirement

from flowertune.base.versions import read_direct_url

NAME = "flowertune"


def pinned_library(project: Mapping[str, Any], name: str = NAME) -> str | None:
    """Return a sentence if the app asks for another library than is installed here.

    Parameters
    ----------
    project
        The content of the app's pyproject.toml.
    name
        The library's distribution.

    Returns
    -------
    str | None
        None where the app pins none, or the one that is installed.
    """
    asked = _asked_for(project, name)
    if asked is None:
        return None
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return None
    origin = read_direct_url(installed.read_text("direct_url.json"))
    if asked.url:
        same = _is_from(asked.url, origin)
    else:
        same = asked.specifier.contains(installed.version, prereleases=True)
    if same:
        return None
    pip = "pip" if find_spec("pip") else "uv pip"  # uv makes environments without pip
    there = f"{name} {installed.version}" + (f" from {origin['url']}" if "url" in origin else "")
    return (
        f"Runs use {there}; for what the app asks for ({asked}): {pip} uninstall"
        f"{' -y' if pip == 'pip' else ''} {name} && {pip} install -e . in its folder."
    )


def _asked_for(project: Mapping[str, Any], name: str) -> Requirement | None:
    for line in project.get("project", {}).get("dependencies", []):
        try:
            requirement = Requirement(str(line))
        except InvalidRequirement:
            continue
        if requirement.name == name:
            return requirement
    return None


def _is_from(url: str, origin: Mapping[str, Any]) -> bool:
    vcs = origin.get("vcs_info") or {}
    known = {vcs.get("commit_id"), vcs.get("requested_revision")} - {None}
    address, _, revision = url.removeprefix("git+").rpartition("@")
    if _bare(address) != _bare(str(origin.get("url"))):
        return False
    return revision in known or ("dir_info" in origin and _is_at(_bare(address), revision))


def _is_at(address: str, revision: str) -> bool:
    """Whether a repository on this machine is at a revision, without changes to its files."""
    git = ("git", "-C", url2pathname(urlsplit(address).path))
    said = [
        subprocess.run([*git, *words], capture_output=True, text=True, check=False).stdout.strip()
        for words in (
            ("rev-parse", "HEAD"),
            ("rev-parse", f"{revision}^{{commit}}"),
            ("status", "--porcelain", "--untracked-files=no"),
        )
    ]
    return bool(said[0]) and said[0] == said[1] and not said[2]


def _bare(address: str) -> str:
    # pip keeps an address as it was typed; one file has several spellings of its address
    return address.replace("file://localhost/", "file:///").removesuffix("/").removesuffix(".git")
