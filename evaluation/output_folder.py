"""Where a result is written: a folder of whoever scores, never one that was handed in."""

import argparse
import os
import re
import tempfile
from pathlib import Path

from evaluation.checkpoint import Checkpoint
from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.rules.checkpoint import scores_folder


def choose(challenge: str, arguments: argparse.Namespace, checkpoint: Checkpoint | None) -> Path:
    """Return the folder of a result: --output, else one under `scores` where the command runs.

    Raises:
        UserError: it would lie in the checkpoint's folder, or behind a link.
    """
    if arguments.output is not None:
        folder = arguments.output
    else:
        suffix = "-base" if arguments.base_only else ""
        above = scores_folder(checkpoint.digest) if checkpoint else _of_model(arguments.model)
        folder = above / f"{challenge}-{arguments.suite}{suffix}"
        for part in (folder, *folder.parents):
            # Whoever prepared this folder may have put links here.
            if part.is_symlink():
                raise UserError(
                    f"{part} is a link, and results are not written through links: remove it, or "
                    "name a folder with --output"
                )
    if checkpoint and folder.resolve().is_relative_to(checkpoint.path.resolve()):
        raise UserError(
            f"results cannot be written to {folder}, which is in the checkpoint's own folder: "
            "run the command in another folder, or name one with --output"
        )
    return folder


def _of_model(model: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", Path(model).expanduser().resolve().name).strip(".-")
    return Path("scores") / f"model-{name or 'unnamed'}"


def check_writable(folder: Path) -> None:
    """Make sure that a folder can be made, and files in it; leaves nothing behind.

    Raises:
        UserError: it cannot.
    """
    try:
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        wrong = _in_the_way(folder)
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".writable-")
        os.close(handle)
        os.unlink(probe)
        # A command that is refused further on leaves no empty folders behind.
        for path in missing:
            path.rmdir()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"results cannot be written to {one_line(ascii(str(folder)), 100)} ({reason}): choose "
            "another folder with --output"
        ) from None
    if wrong is not None:
        raise UserError(
            f"results cannot be written to {folder}, where {wrong}: remove it, or choose another "
            "folder with --output"
        )


def _in_the_way(folder: Path) -> str | None:
    """What stands where a file or folder of a result has to be; None if nothing does."""
    files = [folder / "results.json", folder / "results.md", *folder.glob("rows/*.jsonl")]
    for file in files:
        if file.is_dir() and not file.is_symlink():
            return f"{file.relative_to(folder)} is a folder and a file has to be"
    for inner in (folder / "rows", folder / "lm-eval"):
        if inner.is_symlink() or (inner.exists() and not inner.is_dir()):
            return f"{inner.name} is a link or a file and a folder has to be"
    return None
