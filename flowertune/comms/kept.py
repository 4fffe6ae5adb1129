"""What a client trained last, kept on its disk for the server's questions for buckets."""

import os
import re
from pathlib import Path

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home

_NAME = re.compile(r"trained_(\d+)\.safetensors")


def folder_of(state_key: str, partition: int) -> Path:
    """Return where a partition keeps what it trains in the run of this key."""
    clients = flower_home(os.environ) / "flowertune" / "clients"
    return clients / state_key / f"partition_{partition}"


def kept_file(state_key: str, partition: int, server_round: int) -> Path:
    """Return the file with what a partition trained in a round.

    Raises
    ------
    UserError
        If it is not there.
    """
    path = folder_of(state_key, partition) / f"trained_{server_round}.safetensors"
    if not path.is_file():
        raise UserError(
            f"partition {partition} has nothing kept of round {server_round} ({path} is not "
            "there); FLWR_HOME of a SuperNode must be the same folder over a whole run."
        )
    return path


def drop_others(state_key: str, partition: int, server_round: int) -> None:
    """Remove what the partition kept of other rounds."""
    for path in folder_of(state_key, partition).iterdir():
        match = _NAME.fullmatch(path.name)
        if match and int(match.group(1)) < server_round:
            path.unlink()
