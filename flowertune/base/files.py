"""Small files under the Flower home folder, written whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def flower_home(env: Mapping[str, str]) -> Path:
    """Flower's folder: ``FLWR_HOME`` where it is set, else ``~/.flwr``."""
    given = env.get("FLWR_HOME")
    return Path(given) if given else Path.home() / ".flwr"


def write_atomically(path: Path, text: str) -> None:
    """Replace the content of ``path``: a reader sees the old text or the new, never a part.

    A symlink stays one (the file it points to is replaced) and the file keeps its mode.

    Raises
    ------
    OSError
        The folder cannot be written or the disk is full; the old file is untouched.
    """
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        # newline="" keeps the line ends of the text as they are
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    # the only portable way to read the mask is to set it
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
