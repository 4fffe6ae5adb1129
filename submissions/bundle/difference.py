"""An app's own files against those of the template that the installed library belongs to."""

import difflib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

FILE = "template_app.json"
# Files that a render makes of its answers, so that no two apps have the same.
_RENDERED = frozenset({
    ".copier-answers.yml", ".gitignore", "LICENSE", "README.md", "pyproject.toml",
    "quickstart.toml",
})  # fmt: skip


@cache
def template_files() -> dict[str, str]:
    """Return the text of each file that every render of the template has alike, by its name.

    The names of those in the app's package begin with "app/". `scripts/generate` writes them.
    """
    return json.loads((files(__name__.rpartition(".")[0]) / FILE).read_text("utf-8"))


def package_of(names: Mapping[str, object]) -> str | None:
    """Return the name of an app's package, given its files' names; None where there is none."""
    found = sorted(
        path.parts[0]
        for path in map(PurePosixPath, names)
        if len(path.parts) == 2 and path.name == "server_app.py"
    )
    return found[0] if found else None


def own_name(name: str, package: str | None) -> str:
    """Return what the template calls a file of an app."""
    inside = package is not None and name.startswith(f"{package}/")
    return f"app/{name.removeprefix(f'{package}/')}" if inside else name


def changed_files(app: Mapping[str, bytes]) -> dict[str, str]:
    """Return which files of an app are not the template's, by name: changed, added or removed.

    Files that a render fills in are not compared, nor are the rows of the quickstart.
    """
    package, template = package_of(app), template_files()
    there = {own_name(name, package): content for name, content in app.items()}
    names = {own_name(name, package): name for name in app}
    found = {}
    for own, content in there.items():
        if own not in template and not _is_rendered(own):
            found[names[own]] = "added"
        elif own in template and content != template[own].encode("utf-8"):
            found[names[own]] = "changed"
    missing = [own for own in template if own not in there]
    if package is not None:
        missing = [own.replace("app/", f"{package}/", 1) for own in missing]
    return dict(sorted({**found, **dict.fromkeys(missing, "removed")}.items()))


def difference(app: Mapping[str, bytes]) -> str:
    """Return the unified difference of an app from the template; empty where nothing differs."""
    package, template = package_of(app), template_files()
    parts = []
    for name, how in changed_files(app).items():
        own = own_name(name, package)
        before = template.get(own, "")
        try:
            after = app.get(name, b"").decode("utf-8")
        except UnicodeDecodeError:
            parts.append(f"Binary file {name} was {how}\n")
            continue
        lines = difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            "/dev/null" if how == "added" else f"template/{own}",
            "/dev/null" if how == "removed" else f"app/{name}",
        )
        parts.append("".join(_ended(line) for line in lines) or f"Empty file {name} was {how}\n")
    return "".join(parts)


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _is_rendered(own: str) -> bool:
    return own in _RENDERED or own.startswith(("samples/", "RULES-"))
