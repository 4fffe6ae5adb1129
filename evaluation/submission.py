"""A checkpoint as somebody handed it in: looked at through a private copy of its three files."""

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowertune.base.errors import UserError
from flowertune.base.files import write_json
from flowertune.base.text import is_utf8, one_line
from flowertune.base.untrusted import UnusableFile, copy_regular, open_untrusted, read_strict_json
from flowertune.rules import adapter_config
from flowertune.rules.checkpoint import CONFIG, WEIGHTS, digest_of_parts
from flowertune.rules.manifest import FILE as MANIFEST

# The most bytes that are read of each file; no other file of a checkpoint is read at all.
LIMITS = {CONFIG: 2 * 2**20, MANIFEST: 8 * 2**20, WEIGHTS: 16 * 2**30}
_HEADER = 4 * 2**20
_TENSORS = 20_000
_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Submission:
    """A checkpoint's content.

    Attributes:
        given: its folder, as the user named it.
        folder: a private folder with its weights and what PEFT needs of its configuration.
        config: adapter_config.json, whose every value PEFT can take.
        manifest: manifest.json, None if there is none or it cannot be read.
        manifest_problem: why it cannot be read, to stand after "its manifest.json".
        config_sha256: of adapter_config.json as it was handed in.
        weights_sha256: of the weights.
    """

    given: Path
    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any] | None
    manifest_problem: str | None
    config_sha256: str
    weights_sha256: str

    @property
    def digest(self) -> str:
        """The checkpoint's digest, as `flowertune.rules.checkpoint.checkpoint_digest` has it."""
        return digest_of_parts(self.config_sha256, self.weights_sha256)


@contextmanager
def opened(given: Path) -> Iterator[Submission]:
    """Copy a checkpoint to a private folder, which is removed at the end of the block.

    Only regular files are read, whatever their folder holds, and no link is followed.

    Raises:
        UserError: a file is missing, too large or damaged, or PEFT could not take it; the folder's
            name is no text; or there is no room for the copy.
    """
    if not is_utf8(f"{given}/{given.resolve().name}"):
        raise UserError(
            f"{str(given)!a} is the checkpoint's folder, and its name is no UTF-8 text: rename it"
        )
    with TemporaryDirectory(prefix="flowertune-checkpoint-") as name:
        # PEFT names the adapter's folder in messages.
        folder = Path(name) / (given.resolve().name or "checkpoint")
        folder.mkdir()
        hashes = {file: _copied(given, folder, file) for file in (CONFIG, WEIGHTS)}
        config = _config(folder / CONFIG, given / CONFIG)
        _check_weights(folder / WEIGHTS, given / WEIGHTS, config)
        manifest, problem = read_manifest(given)
        # PEFT reads this file again, and more of it than it has to.
        write_json(folder / CONFIG, adapter_config.usable(config))
        yield Submission(given, folder, config, manifest, problem, hashes[CONFIG], hashes[WEIGHTS])


def _copied(given: Path, folder: Path, name: str) -> str:
    source = given / name
    try:
        return copy_regular(source, folder / name, LIMITS[name])
    except FileNotFoundError:
        others = [p for p in ("adapter_model.bin",) if (given / p).is_file() and name == WEIGHTS]
        more = f", only {others[0]}, which could run code when it is read" if others else ""
        raise UserError(
            f"{given} is no checkpoint, it has no {name}{more}: give a folder peft_<round> that a "
            "run has saved"
        ) from None
    except UnusableFile as error:
        raise UserError(f"{source} {error}: give a checkpoint as a run has saved it") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"{source} cannot be read ({error.strerror})") from None
        raise UserError(
            f"there is no room for a private copy of {source} in {folder.parent.parent}: make "
            "room, or set TMPDIR to another folder"
        ) from None


def _config(copy: Path, source: Path) -> dict[str, Any]:
    try:
        config = read_strict_json(copy, LIMITS[CONFIG])
    except UnusableFile as error:
        raise UserError(f"{source} {error}: give a checkpoint as a run has saved it") from None
    if reason := adapter_config.problem(config):
        raise UserError(
            f"{source} {reason}: the scorer takes LoRA adapters as `flowertune` and PEFT save them"
        )
    return config


def read_manifest(folder: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Return the content of a checkpoint's manifest, or why it cannot be read; neither without."""
    try:
        return read_strict_json(folder / MANIFEST, LIMITS[MANIFEST]), None
    except FileNotFoundError:
        return None, None
    except UnusableFile as error:
        return None, str(error)


def _check_weights(copy: Path, source: Path, config: dict[str, Any]) -> None:
    """Refuse weights that are no safetensors file, or have not the ranks of their configuration."""
    # Late: a mistyped command need not wait for it.
    from safetensors import SafetensorError, safe_open

    with open_untrusted(copy, LIMITS[WEIGHTS]) as file:
        head = file.read(len(_POINTER))
    if head == _POINTER:
        raise UserError(
            f"{source} is a pointer of Git LFS, not the weights: fetch them with `git lfs pull`"
        )
    length = struct.unpack("<Q", head[:8])[0] if len(head) >= 8 else 0
    if not 0 < length <= copy.stat().st_size:
        raise UserError(f"{source} is damaged or cut off: copy the checkpoint again")
    if length > _HEADER:
        raise UserError(
            f"{source} lists its tensors in {length:,} bytes, and at most {_HEADER:,} are read: "
            "give a checkpoint as a run has saved it"
        )
    try:
        with safe_open(str(copy), framework="numpy") as tensors:
            names = list(tensors.keys())
            read = names if len(names) <= _TENSORS else []
            shapes = {name: tensors.get_slice(name).get_shape() for name in read}
    except (SafetensorError, ValueError, TypeError) as error:
        raise UserError(
            f"{source} is damaged or cut off ({one_line(error, 100)}): copy the checkpoint again"
        ) from None
    found = [shape[0] for name, shape in shapes.items() if ".lora_A" in name and shape]
    if len(names) > _TENSORS:
        raise UserError(
            f"{source} has {len(names):,} tensors, and at most {_TENSORS:,} are read: give a "
            "checkpoint as a run has saved it"
        )
    if not shapes:
        raise UserError(f"{source} holds no tensors: give a checkpoint as a run has saved it")
    # PEFT makes matrices of the ranks that the configuration names before it reads the weights.
    if found and max(adapter_config.ranks(config)) > max(found):
        raise UserError(
            f"{source.with_name(CONFIG)} has the rank {max(adapter_config.ranks(config))}, and the "
            f"weights beside it have ranks up to {max(found)}: give a checkpoint as a run has "
            "saved it"
        )
