"""The secret key of a server that adds noise, the noise that follows from it, and what was released
under it.

The key lies in one file that only its owner can read, outside of the run's folder:
``$FLWR_HOME/flowertune/noise-keys/<name>.jsonl``, or where ``FLOWERTUNE_NOISE_KEY`` says. Whoever
has it can subtract the noise, so nothing of it may get anywhere else; a state holds its name alone,
which a pseudorandom function of the key gives. The file has a line for each release as well: who
goes on with the key goes on with the count.

The noise of a release follows from a tag, and the tag from all that the release is made of: no two
sums ever have the same noise, or their difference would be in the open. Only in a replay, whose sum
may differ in its last bits on another machine and which releases nothing, it is the noise that the
run added in that round.
"""

import hashlib
import hmac
import json
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from flowertune.base.errors import UserError
from flowertune.base.files import flower_home, read_jsonl, sync
from flowertune.rules.manifest import list_of, object_with
from flowertune.rules.values import DIGEST, Value, is_number, whole

GIVEN = "FLOWERTUNE_NOISE_KEY"  # the file of a key that exists
BYTES = 32
BLOCK = 2**14  # pairs of values that are made at a time
KEY, RELEASE, REPLAY = "key", "release", "replay"
ROUND, PARTITIONS = "round", "partitions"
_RELEASE = object_with(
    noise=Value("a number above 0", lambda given: is_number(given) and given > 0),
    **{RELEASE: DIGEST, ROUND: whole(1), PARTITIONS: list_of(whole())},
)


@dataclass
class NoiseKey:
    """A key, its file, and the releases under it, by their tags; ``replay``: for a replay alone."""

    secret: bytes = field(repr=False)
    file: Path
    releases: dict[str, dict[str, Any]] = field(default_factory=dict)
    replay: bool = False

    @property
    def name(self) -> str:
        """What the key is called: 32 hexadecimal digits, from which it cannot be found."""
        return self._derived(b"name").hex()[:BYTES]

    def tag(self, server_round: int, partitions: list[int], digest: bytes) -> str:
        """Return the tag of a round's release; ``digest`` is of what it is made of besides."""
        if self.replay:
            for tag, about in reversed(self.releases.items()):
                if (about[ROUND], about[PARTITIONS]) == (server_round, partitions):
                    return tag
        return self._derived(b"release", repr((server_round, partitions)).encode(), digest).hex()

    def add_noise(self, values: np.ndarray, scale: float, tag: str, tensor: str) -> None:
        """Add Gaussian noise of a standard deviation to float64 values, in place.

        The stream is ChaCha20's, under a key of its own for each tag and tensor; the values are
        Box and Muller's (1958). The same tag and tensor have the same noise.
        """
        seed = self._derived(b"noise", bytes.fromhex(tag), tensor.encode("utf-8"))
        stream = Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
        flat, zeros = values.reshape(-1), bytes(16 * BLOCK)
        for first in range(0, flat.size, 2 * BLOCK):
            part = flat[first : first + 2 * BLOCK]
            whole = np.frombuffer(stream.update(zeros), "<u8") >> np.uint64(11)  # 53 bits
            uniform = whole.astype(np.float64) * 2.0**-53  # from 0 to below 1
            radius = np.sqrt(-2 * np.log(1 - uniform[:BLOCK])) * scale
            angle = 2 * np.pi * uniform[BLOCK:]
            part += np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: part.size]

    def _derived(self, purpose: bytes, *parts: bytes) -> bytes:
        mac = hmac.new(self.secret, digestmod=hashlib.sha256)
        for part in (purpose, *parts):
            mac.update(len(part).to_bytes(8, "big") + part)
        return mac.digest()

    def save(self) -> None:
        """Write the file of a key that has none yet, for its owner alone to read.

        Raises
        ------
        UserError
            It cannot be written.
        """
        if self.file.exists():
            return
        self._append({KEY: self.secret.hex()}, os.O_CREAT | os.O_EXCL)

    def note(self, tag: str, about: dict[str, Any]) -> None:
        """Write down a release, durably, before anything of it gets out.

        Raises
        ------
        UserError
            It cannot be written.
        """
        self.save()
        self._append({RELEASE: tag, **about}, 0)
        self.releases[tag] = {RELEASE: tag, **about}

    def _append(self, line: dict[str, Any], flags: int) -> None:
        flags |= os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(self.file, flags, 0o600), "ab") as file:
                file.write((json.dumps(line) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
            sync(self.file.parent)
        except OSError as error:
            raise UserError(
                f"{self.file}, where the key of the run's noise and its releases are kept, cannot "
                f"be written ({error.strerror}): without it no round may be released."
            ) from None


def folder() -> Path:
    """Return where keys are kept that a run makes itself."""
    return flower_home(os.environ) / "flowertune" / "noise-keys"


def key_of_run() -> NoiseKey:
    """Return the key that the environment gives, or a new one, which has no file yet."""
    if given := os.environ.get(GIVEN):
        return read_key(Path(given))
    key = NoiseKey(secrets.token_bytes(BYTES), Path())
    key.file = folder() / f"{key.name}.jsonl"
    return key


def key_named(name: str) -> NoiseKey:
    """Return the key of a run that goes on.

    Raises
    ------
    UserError
        If it is not here.
    """
    if given := os.environ.get(GIVEN):
        key = read_key(Path(given))
        where = given
    else:
        where = folder() / f"{name}.jsonl"
        key = read_key(where) if where.is_file() else None
    if key is None or key.name != name:
        raise UserError(
            f"the noise of this run is made with the key {name}, which is not {where}: a run with "
            f"secret noise is resumed and replayed by the holder of its key alone; give the key's "
            f"file with {GIVEN}, or start a new run."
        )
    return key


def read_key(file: Path) -> NoiseKey:
    """Return the key in a file.

    Raises
    ------
    UserError
        If it holds none, or others than its owner can read it.
    """
    try:
        lines, mode = read_jsonl(file), file.stat().st_mode
        secret = bytes.fromhex(lines[0][KEY])
        releases = {str(line[RELEASE]): line for line in lines[1:]}
        if len(secret) != BYTES or not all(map(_RELEASE.fits, releases.values())):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        # Without what was read: a sentence is logged, and may hold no part of a key.
        raise UserError(
            f"{file} cannot be read as the key of a run's noise; give the file that the run's "
            f"server made ({GIVEN})."
        ) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(
            f"{file} is a secret key that others than its owner can read; take that from them: "
            f"chmod 600 {file}."
        )
    return NoiseKey(secret, file, releases, lines[0].get(REPLAY) is True)


def for_replay(key: NoiseKey) -> str:
    """Return what the file of a key holds in a replay: its releases, whose noise is added again."""
    lines = [{KEY: key.secret.hex(), REPLAY: True}, *key.releases.values()]
    return "".join(json.dumps(line) + "\n" for line in lines)
