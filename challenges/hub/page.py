"""The page a person sees: the challenges, their rules, and the exact commands."""

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from challenges.hub.index import Index
from challenges.hub.repository import Release

_HERE = files(__name__.rpartition(".")[0])


@cache
def style() -> str:
    """The page's style sheet."""
    return (_HERE / "style.css").read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string((_HERE / "index.html").read_text(encoding="utf-8"))


def render(
    index: Index, releases: list[Release], address: str, source: str, board: bool = False
) -> str:
    """The page of a release, as HTML.

    Parameters
    ----------
    index : Index
        The newest release's that is served.
    releases : list[Release]
        All that are served, the newest first; the index is of the first.
    address : str
        The hub's, as the reader wrote it.
    source : str
        The template's address for `copier copy`.
    board : bool
        Whether the hub serves one.
    """
    challenges = [
        {
            "name": name,
            "facts": facts,
            "apps": [app for app in index.apps.values() if app.challenge == name],
        }
        for name, facts in index.facts.items()
    ]
    return _template().render(
        challenges=challenges,
        rule_sets=index.rule_sets,
        release=releases[0],
        older=releases[1:],
        address=address,
        source=source,
        board=board,
    )
