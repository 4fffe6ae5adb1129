"""The states that a participant hands over, a folder or a zip: copied, and held to the chain."""

import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.hashing import file_sha256
from flowertune.base.untrusted import UnusableFile, copy_regular, open_untrusted, read_strict_json
from flowertune.comms.partition_files import RESIDUAL, STATE, tensors_sha256
from flowertune.run import chain
from flowertune.run.state import BODY, TENSORS
from submissions import zip_members
from submissions.replay.tensors import FILE_BYTES, read_tensors
from submissions.zip_members import UnusableZip

FILES = (BODY, *TENSORS)
BODY_BYTES = 8 * 2**20
MOST_MEMBERS = 200_000
CLIENTS = "clients"  # partition_<p>/<kind>_<round>.safetensors: what clients kept
_PLACES = ("state/", "")  # where round_<n> may lie


@dataclass(frozen=True)
class GivenState:
    """The state after a round, as the chain has it: a private copy of its three files."""

    server_round: int
    folder: Path
    body: Mapping[str, Any]


class Source:
    """States in a folder or a zip; only files of names that are asked for are looked at."""

    def __init__(self, given: Path) -> None:
        """Look at what was given.

        Raises
        ------
        UserError
            It is neither a folder nor a zip that every program reads alike.
        """
        self.given = given
        self._members: dict[str, zip_members.Member] | None = None
        if given.is_dir() and not given.is_symlink():
            return
        try:
            with open_untrusted(given, 2**44) as file:
                size = os.fstat(file.fileno()).st_size
                found = zip_members.members(file, size, MOST_MEMBERS)
        except FileNotFoundError:
            raise UserError(f"--states {given}: there is no such file or folder.") from None
        except (UnusableFile, UnusableZip) as error:
            raise UserError(f"--states {given}: {error}.") from None
        self._members = {member.name: member for member in found}

    def copy(self, name: str, target: Path, most: int) -> bool:
        """Copy a file to ``target``, which does not exist; False where there is none.

        Raises
        ------
        UserError
            It is no regular file, or larger than ``most`` bytes.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if self._members is None:
                path = self.given / name
                if any(p.is_symlink() for p in path.parents if p.is_relative_to(self.given)):
                    raise UnusableFile("lies behind a symbolic link")
                copy_regular(path, target, most)
                return True
            return self._unpack(name, target, most)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return False
        except (UnusableFile, UnusableZip) as error:
            raise UserError(f"--states {self.given}: {name} {error}.") from None
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                return False
            raise UserError(f"--states {self.given}: {name} {error.strerror}.") from None

    def _unpack(self, name: str, target: Path, most: int) -> bool:
        assert self._members is not None
        member = self._members.get(name)
        if member is None:
            return False
        if member.size > most:
            raise UnusableFile(f"has {member.size:,} bytes, and at most {most:,} are read")
        with open_untrusted(self.given, 2**44) as file, target.open("xb") as copy:
            for piece in zip_members.content(file, member):
                copy.write(piece)
        return True


def take_state(
    source: Source, server_round: int, records: Mapping[int, Mapping[str, Any]], scratch: Path
) -> GivenState | None:
    """Return the state after a round; None where it was not handed over.

    Raises
    ------
    UserError
        It is not the state that the chain has; says which file differs.
    """
    folder = scratch / f"round_{server_round}"
    found = {}
    for name in FILES:
        most = BODY_BYTES if name == BODY else FILE_BYTES
        found[name] = any(
            source.copy(f"{place}round_{server_round}/{name}", folder / name, most)
            for place in _PLACES
        )
    if not any(found.values()):
        return None
    if missing := [name for name, there in found.items() if not there]:
        raise UserError(
            f"--states {source.given}: round_{server_round} has no {', '.join(missing)}; hand over "
            "the whole folder state/round_<n> of the run."
        )
    record = records[server_round]
    for name, key in zip(TENSORS, (chain.ADAPTER, chain.STRATEGY), strict=True):
        _same(source, f"round_{server_round}/{name}", file_sha256(folder / name), record[key])
    try:
        body = read_strict_json(folder / BODY, BODY_BYTES)
    except UnusableFile as error:
        raise UserError(f"--states {source.given}: round_{server_round}/{BODY} {error}.") from None
    _same(source, f"round_{server_round}/{BODY}", chain.state_sha256(body), record[chain.STATE])
    return GivenState(server_round, folder, body)


def kept_name(partition: int, kind: str, server_round: int) -> str:
    """Return the name of what a client kept in a round."""
    return f"{CLIENTS}/partition_{partition}/{kind}_{server_round}.safetensors"


def take_kept(
    source: Source | None,
    server_round: int,
    partitions: Sequence[int],
    records: Mapping[int, Mapping[str, Any]],
    scratch: Path,
) -> list[str]:
    """Copy what these clients began a round with; return what is missing.

    Only what the chain names is taken: by the round in which a client kept it, and its digest.

    Raises
    ------
    StateDiffers
        A file is not the one that the chain has.
    """
    missing = []
    for partition in partitions:
        for kind in (STATE, RESIDUAL):
            before = chain.kept_before(records, partition, kind, server_round)
            if before is None:
                continue
            name = kept_name(partition, kind, before[0])
            if source is None or not source.copy(name, scratch / name, FILE_BYTES):
                missing.append(name)
                continue
            _same(source, name, _sha256(source, name, scratch / name), before[1])
    return missing


def claimed_kept(
    source: Source | None,
    server_round: int,
    partitions: Sequence[int],
    records: Mapping[int, Mapping[str, Any]],
    scratch: Path,
) -> dict[tuple[int, str], Path]:
    """Return what these clients kept after a round, as far as it was handed over.

    Raises
    ------
    StateDiffers
        A file is not the one that the chain has.
    """
    found = {}
    for partition in partitions:
        for kind, digest in chain.kept_of(records[server_round], partition).items():
            name = kept_name(partition, kind, server_round)
            if source is not None and source.copy(name, scratch / name, FILE_BYTES):
                _same(source, name, _sha256(source, name, scratch / name), digest)
                found[partition, kind] = scratch / name
    return found


def _sha256(source: Source, name: str, copy: Path) -> str:
    try:
        return tensors_sha256(read_tensors(copy))
    except UnusableFile as error:
        raise UserError(f"--states {source.given}: {name} {error}.") from None


def _same(source: Source, name: str, found: str, recorded: str) -> None:
    if found != recorded:
        raise StateDiffers(
            f"--states {source.given}: {name} is not what the chain of the "
            f"bundle has (sha256 {found[:12]}, in the chain {recorded[:12]}): the file was "
            "changed, or belongs to another run."
        )


class StateDiffers(UserError):
    """A state that was handed over is not the one that the chain fixed."""
