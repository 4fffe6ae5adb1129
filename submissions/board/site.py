"""Write the site: pages, their data, and the few files that all of them use."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import new_folder
from submissions.board import tables
from submissions.board.entry import Entry, Refused
from submissions.board.pages import Site
from submissions.board.ranking import boards

MARK = "board.json"  # what a folder holds that may be replaced
_STATIC = ("board.css", "theme.js", "board.js")
_FOLDERS = ("boards", "submissions")
_FILES = (
    "index.html", "refused.html", "tiers.html", MARK, "board.csv", "refused.csv", "base.css",
    *_STATIC,
)  # fmt: skip
_SHOWN = 3


def check_target(target: Path) -> None:
    """Refuse a folder that holds anything but an earlier site, which would be lost.

    Raises
    ------
    UserError
        It does, or it is a file.
    """
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file: name a folder with -o.")
    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    others = sorted(there.difference(_FILES, _FOLDERS))
    if others or (there and MARK not in there):
        named = ", ".join([*(others or sorted(there))[:_SHOWN], *["…"][: len(others) > _SHOWN]])
        raise UserError(
            f"{target} holds something else than a board ({named}), and would be replaced: name "
            "another folder with -o."
        )


def write_site(
    target: Path, title: str, entries: Sequence[Entry], refused: Sequence[Refused]
) -> None:
    """Write the whole site to a folder, in the place of the site that is there, or not at all.

    Parameters
    ----------
    target
        The folder: new, empty, or one with an earlier site.
    title
        The site's name.

    Raises
    ------
    UserError
        The folder holds something else, or it cannot be written.
    """
    target = target.absolute()
    check_target(target)
    site = Site(title, boards(entries), sorted(refused, key=lambda one: one.bundle))
    try:
        with new_folder(target) as folder:
            _fill(folder, site)
    except OSError as error:
        raise UserError(
            f"{target} cannot be written ({error.strerror}): name another with -o."
        ) from None


def _fill(folder: Path, site: Site) -> None:
    for name in _FOLDERS:
        (folder / name).mkdir()
    _write(folder / "index.html", site.index())
    _write(folder / "refused.html", site.refusals())
    _write(folder / "tiers.html", site.tiers())
    _write(folder / MARK, _json(tables.everything(site.title, site.boards, site.refused)))
    _write(folder / "board.csv", tables.as_csv(site.boards))
    _write(folder / "refused.csv", tables.refused_csv(site.refused))
    for board in site.boards:
        place = folder / "boards" / board.id
        _write(place.with_name(f"{board.id}.html"), site.board(board))
        _write(place.with_name(f"{board.id}.json"), _json(tables.board(board)))
        _write(place.with_name(f"{board.id}.csv"), tables.as_csv([board]))
        for row in board.rows:
            if row.entry.reference:
                continue
            page = folder / "submissions" / f"{row.entry.id}.html"
            _write(page, site.submission(board, row))
            _write(page.with_suffix(".json"), _json(tables.submission(row)))
    here = files("submissions.board") / "static"
    for name in _STATIC:
        _write(folder / name, (here / name).read_text("utf-8"))
    base = files("flowertune.report") / "style.css"
    _write(folder / "base.css", base.read_text("utf-8"))


def _write(path: Path, text: str) -> None:
    # newline="": a CSV has its own line ends.
    path.write_text(text, "utf-8", newline="")


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"
