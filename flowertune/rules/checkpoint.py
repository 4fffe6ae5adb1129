"""A run's checkpoints, and what identifies one: the digest of its weights and configuration."""

import re
from pathlib import Path

from flowertune.base.hashing import file_sha256, json_sha256

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
SHORT = 12  # digits of a digest in a folder's name
_SAVED = re.compile(r"peft_(\d+)")


def saved_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints in a run's folder, by round; none where it cannot be read."""
    try:
        entries = list(run.iterdir())
    except OSError:
        return []
    rounds = {
        int(match.group(1)): entry
        for entry in entries
        if (match := _SAVED.fullmatch(entry.name)) and (entry / CONFIG).is_file()
    }
    return [rounds[number] for number in sorted(rounds)]


def checkpoint_digest(folder: Path) -> str:
    """Return the digest of a checkpoint's folder, in hex.

    Its manifest is no part of it, nor is any other file.

    Raises
    ------
    OSError
        The weights or the configuration are missing or cannot be read.
    """
    return digest_of_parts(file_sha256(folder / CONFIG), file_sha256(folder / WEIGHTS))


def digest_of_parts(config_sha256: str, weights_sha256: str) -> str:
    """Return a checkpoint's digest, given the sha256 of its two files."""
    return json_sha256({CONFIG: config_sha256, WEIGHTS: weights_sha256})


def scores_folder(digest: str) -> Path:
    """Return where the scores of a checkpoint lie by default, below where the scorer is run."""
    return Path("scores") / digest[:SHORT]
