"""What one partition keeps on its disk from round to round: named tensors, a file a round.

These are files and not Flower's client state, because they must survive a killed run and go back
with the round when a round is done again.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, replace_file, save_tensors
from flowertune.base.text import one_line

RESIDUAL, TRAINED, STATE = "residual", "trained", "state"
# A run can be resumed from one of its states (run/state.py): what a partition had then stays.
FEWEST_STATES = 3
CURE = "start a new run, or resume this one from an earlier state (results/<id>/state/round_<n>)"
KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


def branched(key: str, before: str, server_round: int) -> str:
    """Return the run key of a process that goes on after a round.

    It keeps its files under ``key``, and finds those of rounds up to that one under the keys in
    ``before``: "3 2@8 1@5" went on from run 2 after round 8, which went on from run 1 after 5.
    """
    own, *parents = before.split(" ")
    return " ".join([key, f"{own}@{server_round}", *parents])


def _branches(run_key: str) -> list[tuple[str, int | None]]:
    """Return the keys in a run key, each with the last round that counts; None: all."""
    own, *parents = run_key.split(" ")
    pairs = [(own, None), *((key, int(last)) for key, last in (p.split("@") for p in parents))]
    if not all(KEY.fullmatch(key) for key, _ in pairs):
        raise ValueError("its keys must be letters, digits, - and _")
    return pairs


def clients_folder() -> Path:
    """Return where the clients of this machine keep files: a folder of each run, by its id."""
    return flower_home(os.environ) / "flowertune" / "clients"


def files_by_round(clients: Path, run_key: str, partition: int, kind: str) -> dict[int, Path]:
    """Return what a partition kept in a run and in those that it goes on with, by round.

    Parameters
    ----------
    clients
        As ``clients_folder``, or a copy of it.
    run_key, partition, kind
        As of ``PartitionFiles``.
    """
    files: dict[int, Path] = {}
    name = re.compile(rf"{kind}_([0-9]{{1,9}})\.safetensors")
    for key, last in reversed(_branches(run_key)):
        folder = clients / key / f"partition_{partition}"
        if last is not None:
            files = {n: path for n, path in files.items() if n <= last}
        for path in folder.iterdir() if folder.is_dir() else ():
            match = name.fullmatch(path.name)
            if match and (last is None or int(match.group(1)) <= last):
                files[int(match.group(1))] = path
    return files


@dataclass(frozen=True)
class PartitionFiles:
    """The files of one kind that one partition keeps in one run.

    Parameters
    ----------
    run_key : str
        The run and those that it goes on with (see ``branched``).
    kind : str
        RESIDUAL (error feedback), TRAINED (for buckets) or STATE (the method's own).
    states : int
        How many of the run's newest states stay; 0: all.

    Raises
    ------
    UserError
        If the run key is not one; it comes with a message, and names folders.
    """

    run_key: str
    partition: int
    kind: str
    states: int = FEWEST_STATES

    def __post_init__(self) -> None:
        try:
            _branches(self.run_key)
        except ValueError as error:
            raise UserError(
                f"state-key of the message is {self.run_key!r}, which names no run ({error}); "
                "update the library of server and clients to the same version."
            ) from None

    @property
    def folder(self) -> Path:
        """Where the partition keeps everything of the run."""
        return clients_folder() / _branches(self.run_key)[0][0] / f"partition_{self.partition}"

    def rounds(self) -> dict[int, Path]:
        """Return the files there are, by round; those of runs that this one went on with, too."""
        return files_by_round(clients_folder(), self.run_key, self.partition, self.kind)

    def load(self, last_round: int) -> dict[str, Any]:
        """Return what was kept in ``last_round`` or, if nothing was, in the newest round before it.

        Empty where there is none. Later files are left from rounds that did not count.

        Raises
        ------
        UserError
            If the file is damaged, or was dropped since: states of a run may stay for longer.
        """
        # Late: a client that only gives buckets of a file does without torch.
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        files = self.rounds()
        if self._dropped(last_round):
            raise UserError(
                f"partition {self.partition} has no longer what it kept in round {last_round}: the "
                f"run went on for more than {self.states - 1} rounds after it; resume it from a "
                "later state (results/<id>/state/round_<n>)."
            )
        newest = max((n for n in files if n <= last_round), default=None)
        if newest is None:
            return {}
        try:
            tensors = load_file(files[newest])
            with safe_open(files[newest], "pt") as file:
                saved = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{files[newest]} cannot be read ({one_line(error)}); {CURE}."
            ) from None
        if saved != tensors_sha256(tensors):
            raise UserError(f"{files[newest]} is not what this client kept: it changed; {CURE}.")
        return tensors

    def _dropped(self, last_round: int) -> bool:
        """Whether the file that counts after ``last_round`` may have been dropped by ``keep``."""
        if not self.states:
            return False
        branches = _branches(self.run_key)
        began = [last or 0 for _, last in branches[1:]] + [0]
        for (key, _), start in zip(branches, began, strict=True):
            if last_round > start:
                own = PartitionFiles(key, self.partition, self.kind).rounds()
                return bool(own) and last_round < min(min(own), max(own) - self.states + 1)
        return False

    def sha256_of(self, server_round: int) -> str:
        """Return the digest of what was kept in a round (see ``tensors_sha256``).

        Raises
        ------
        UserError
            If nothing was.
        """
        # Late: a client that only gives buckets of a file does without it.
        from safetensors import safe_open

        with safe_open(self.of_round(server_round), "pt") as file:
            return str((file.metadata() or {}).get("sha256"))

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
        """Keep this round's tensors; drop those that no resumed run can need any more.

        It can need what was kept in the rounds of all states that stay, and before the oldest of
        them. Where all states stay, all files do: a verifier may draw any round, and train it
        again from what clients kept before it. A process that is killed leaves the old file of
        the round or the new one.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.kind}_{server_round}.safetensors"
        part = path.with_name(f".{path.name}.part")
        save_tensors(
            tensors, part, None if self.kind == TRAINED else {"sha256": tensors_sha256(tensors)}
        )
        replace_file(part, path)
        if not self.states and self.kind != TRAINED:
            return
        files = self.rounds()
        back = 0 if self.kind == TRAINED else self.states - 1
        since = min(last_round, server_round - 1 - back)
        needed = max((n for n in files if n <= since), default=None)
        for n, file in files.items():
            if n < server_round - back and n != needed and file.parent == self.folder:
                file.unlink(missing_ok=True)


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """Return the sha256 of named tensors: of names, types, shapes and bytes, in hex."""
    import torch  # late, as in ``load``

    seen = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        dense = tensor.detach().to_dense().cpu().contiguous()
        seen.update(repr((name, str(dense.dtype), tuple(dense.shape))).encode())
        seen.update(dense.reshape(-1).view(torch.uint8).numpy())
    return seen.hexdigest()
