"""What one partition keeps on its disk from round to round: named tensors, a file a round.

These are files and not Flower's client state, because they must survive a killed run and go back
with the round when a round is done again.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, replace_file, save_tensors

RESIDUAL, TRAINED, STATE = "residual", "trained", "state"


@dataclass(frozen=True)
class PartitionFiles:
    """The files of one kind that one partition keeps in one run.

    Parameters
    ----------
    run_key : str
        Stable over resumed runs.
    kind : str
        RESIDUAL (error feedback), TRAINED (for buckets) or STATE (the method's own).
    """

    run_key: str
    partition: int
    kind: str

    @property
    def folder(self) -> Path:
        """Where the partition keeps everything of the run."""
        clients = flower_home(os.environ) / "flowertune" / "clients"
        return clients / self.run_key / f"partition_{self.partition}"

    def rounds(self) -> dict[int, Path]:
        """Return the files there are, by round."""
        if not self.folder.is_dir():
            return {}
        name = re.compile(rf"{self.kind}_(\d+)\.safetensors")
        names = ((name.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match.group(1)): path for match, path in names if match}

    def load(self, last_round: int) -> dict[str, Any]:
        """Return what was kept in ``last_round`` or, if nothing was, in the newest round before it.

        Empty where there is none. Later files are left from rounds that did not count.
        """
        # Late: a client that only gives buckets of a file does without torch.
        from safetensors.torch import load_file

        files = self.rounds()
        newest = max((n for n in files if n <= last_round), default=None)
        return {} if newest is None else load_file(files[newest])

    def of_round(self, server_round: int) -> Path:
        """Return the file of a round.

        Raises
        ------
        UserError
            If it is not there.
        """
        path = self.folder / f"{self.kind}_{server_round}.safetensors"
        if not path.is_file():
            raise UserError(
                f"partition {self.partition} has nothing kept of round {server_round} ({path} is "
                "not there); FLWR_HOME of a SuperNode must be the same folder over a whole run."
            )
        return path

    def keep(self, server_round: int, tensors: Mapping[str, Any], last_round: int = 0) -> None:
        """Keep this round's tensors and what ``load(last_round)`` gives; drop other earlier ones.

        A process that is killed leaves the old file of the round or the new one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.kind}_{server_round}.safetensors"
        part = path.with_name(f".{path.name}.part")
        save_tensors(tensors, part)
        replace_file(part, path)
        files = self.rounds()
        needed = max((n for n in files if n <= last_round), default=None)
        for n, file in files.items():
            if n < server_round and n != needed:
                file.unlink(missing_ok=True)
