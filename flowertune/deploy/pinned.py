"""Compare the library that an app asks for with the one that is installed."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Any

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
    remove = f"{pip} uninstall{' -y' if pip == 'pip' else ''} {name}"
    there = f"{name} {installed.version}" + (f" from {origin['url']}" if "url" in origin else "")
    return (
        f"The app asks for {asked}, and {there} is installed here. Runs use what is installed; "
        f"for the other, type {remove} and then {pip} install -e . in the app's folder, or connect "
        "with --runtime-install."
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
    return bool(known) and revision in known and _bare(address) == _bare(str(origin.get("url")))


def _bare(address: str) -> str:
    # pip keeps an address as it was typed; one file has several spellings of its address
    return address.replace("file://localhost/", "file:///").removesuffix("/").removesuffix(".git")
