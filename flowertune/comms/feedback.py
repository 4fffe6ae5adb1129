"""What rounding left behind at one partition, kept from round to round.

It is the app's own file and not Flower's client state, because it must survive a killed run and
go back with the round when a round is done again.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from flowertune.base.files import flower_home

NAME = re.compile(r"round_(\d+)\.safetensors")


@dataclass(frozen=True)
class Feedback:
    """The files of one partition in one run."""

    folder: Path

    @classmethod
    def of_run(cls, state_key: str, partition: int) -> "Feedback":
        """Return the partition's files for the run of this key (stable over resumed runs)."""
        clients = flower_home(os.environ) / "flowertune" / "clients"
        return cls(clients / state_key / f"partition_{partition}")

    def _rounds(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        found = ((NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match.group(1)): path for match, path in found if match}

    def before(self, server_round: int) -> dict[str, torch.Tensor]:
        """Return what was kept by the last round before this one; empty where there is none.

        Files of this round or later ones are left from rounds that did not count.
        """
        earlier = {n: path for n, path in self._rounds().items() if n < server_round}
        return load_file(earlier[max(earlier)]) if earlier else {}

    def keep(self, server_round: int, residual: dict[str, torch.Tensor]) -> None:
        """Keep this round's residual, and of the older ones only the newest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".round_{server_round}.part"
        save_file(residual, part)
        os.replace(part, self.folder / f"round_{server_round}.safetensors")
        rounds = self._rounds()
        earlier = [n for n in rounds if n < server_round]
        for n, path in rounds.items():
            if n < server_round and n != max(earlier):
                path.unlink()
