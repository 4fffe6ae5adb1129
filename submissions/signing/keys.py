"""Keys that sign: Ed25519, or EC on P-256 or P-384, as PEM files or as OpenSSH writes them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption

from flowertune.base.errors import UserError
from flowertune.base.text import one_line
from flowertune.base.untrusted import UnusableFile, open_untrusted

PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
PASSPHRASE = "FLOWERTUNE_KEY_PASSPHRASE"
ALLOWED = "an Ed25519 key, or an EC key on P-256 or P-384"
_CURVES = ("secp256r1", "secp384r1")
_KEY_BYTES = 16 * 2**10


@dataclass(frozen=True)
class Signer:
    """Who made a signature that fits: the public key, and its fingerprint."""

    public_key: str  # PEM
    fingerprint: str


def new_key(path: Path) -> Signer:
    """Make an Ed25519 key: the private one in ``path``, the public one beside it in ``.pub``.

    The private one is encrypted if there is a passphrase in the environment.

    Raises
    ------
    UserError
        A file of that name is there, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        BestAvailableEncryption(secret) if (secret := passphrase()) else NoEncryption(),
    )
    public = public_pem(key.public_key())
    beside = path.with_name(f"{path.name}.pub")
    # Both names are looked at first, so that no private key is left behind without its public one.
    if there := next((file for file in (path, beside) if os.path.lexists(file)), None):
        raise UserError(f"{there} is there already, and a key is not replaced: name another file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file, content, mode in ((path, private, 0o600), (beside, public.encode(), 0o644)):
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as opened:
                opened.write(content)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): name another file."
        ) from None
    return signer_of(key.public_key())


def passphrase() -> bytes | None:
    """Return the passphrase of private keys that the environment holds; None without one."""
    return os.environ.get(PASSPHRASE, "").encode() or None


def private_key(path: Path) -> PrivateKey:
    """Return the private key in a file; its passphrase, if it has one, is in the environment.

    Raises
    ------
    UserError
        There is none that can be used.
    """
    data = _content(path)
    secret = passphrase()
    openssh = data.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(data, secret)
    except TypeError as error:  # a passphrase is missing, or there is one too many
        hint = f"put its passphrase into {PASSPHRASE}" if secret is None else f"unset {PASSPHRASE}"
        raise UserError(f"{path} cannot be read ({one_line(error, 80)}): {hint}.") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{path} holds no private key that can be read ({one_line(error, 80)}): give {ALLOWED} "
            "in PEM; --new-key FILE makes one."
        ) from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    raise UserError(f"{path} holds a key of another kind ({type(key).__name__}): give {ALLOWED}.")


def public_key(path: Path) -> PublicKey:
    """Return the public key in a file, in PEM or as OpenSSH writes it.

    Raises
    ------
    UserError
        There is none that can be used.
    """
    data = _content(path)
    try:
        if data.startswith((b"ssh-", b"ecdsa-")):
            return _allowed(serialization.load_ssh_public_key(data))
        return read_public(data.decode("ascii"))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{path} holds no public key that can be read ({one_line(error, 80)}): give {ALLOWED} "
            "in PEM, as in the file .pub beside the private one."
        ) from None


def read_public(pem: str) -> PublicKey:
    """Return the public key in a PEM text, which may be somebody else's.

    Raises
    ------
    ValueError
        It is none that can be used.
    """
    if len(pem) > _KEY_BYTES or not pem.isascii():
        raise ValueError("it is no public key in PEM")
    return _allowed(serialization.load_pem_public_key(pem.encode("ascii")))


def public_pem(key: PublicKey) -> str:
    """Return a public key as a PEM text."""
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode("ascii")


def signer_of(key: PublicKey) -> Signer:
    """Return a public key with its fingerprint, the sha256 of its DER form, in hex."""
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Signer(public_pem(key), hashlib.sha256(der).hexdigest())


def _allowed(key: object) -> PublicKey:
    if isinstance(key, Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise ValueError(f"it is a key of another kind: {type(key).__name__}")


def _content(path: Path) -> bytes:
    try:
        with open_untrusted(path.resolve(), _KEY_BYTES) as file:
            return file.read(_KEY_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"There is no key {path}: --new-key {path} makes one.") from None
    except UnusableFile as error:
        raise UserError(f"{path} {error}: give a key's file.") from None
