"""Files that a command writes: one that is there already is replaced only where that is asked."""

from collections.abc import Iterable
from pathlib import Path


def taken(paths: Iterable[Path], option: str) -> list[str]:
    """Return a sentence for each path at which there is something already.

    Parameters
    ----------
    paths
        Where a command is about to write.
    option
        Which of its options names another place.
    """
    return [
        f"{path} is there already, and is not replaced: name another with {option}, or say --force."
        for path in paths
        if path.exists() or path.is_symlink()
    ]
