"""Bundles on a command line: a path at which there is none is a slip, not an INVALID bundle."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from submissions import layout

_SHOWN = 5
_PATTERN = "*?["


def check_bundles(given: Sequence[Path]) -> None:
    """Refuse paths at which there is nothing, and folders of bundles.

    Parameters
    ----------
    given
        Zips, or the folders of unpacked ones.

    Raises
    ------
    UserError
        One sentence for what is missing, one for such folders.
    """
    gone = [path for path in given if not path.exists() and not path.is_symlink()]
    around = [path for path in given if path not in gone and _holds_bundles(path)]
    sentences = []
    if gone:
        named = ", ".join(one_line(str(path)) for path in gone[:_SHOWN])
        more = f" and {len(gone) - _SHOWN:,} more" if len(gone) > _SHOWN else ""
        hint = (
            "the pattern matches no file"
            if any(sign in str(path) for path in gone for sign in _PATTERN)
            else "give zips, or their unpacked folders"
        )
        sentences.append(f"There is no bundle {named}{more}: {hint}.")
    if around:
        named = ", ".join(f"{one_line(str(path))}/*.zip" for path in around[:_SHOWN])
        sentences.append(f"A folder that holds bundles is none itself: give {named}.")
    if sentences:
        raise UserError(" ".join(sentences))


def all_at_once(*checks: Callable[[], object]) -> None:
    """Run checks of a command line, and refuse it with what all of them say.

    Raises
    ------
    UserError
        One check or more raised one.
    """
    sentences = []
    for check in checks:
        try:
            check()
        except UserError as error:
            sentences.append(str(error))
    if sentences:
        raise UserError(" ".join(sentences))


def _holds_bundles(path: Path) -> bool:
    if not path.is_dir() or path.is_symlink():
        return False
    own = (layout.SUMS, layout.SUBMISSION)
    return not any((path / name).exists() for name in own) and any(path.glob("*.zip"))
