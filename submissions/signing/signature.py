"""A signature of some bytes, or of a JSON object, with the public key that it is checked by.

It says that the holder of a key signed just these bytes. Whose key that is, the reader has to know.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flowertune.rules.values import DIGEST, Value, one_of
from submissions.signing.keys import PrivateKey, PublicKey, Signer, read_public, signer_of

FORMAT = 1
ED25519, EC_256, EC_384 = "ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384"
SIGNATURE = "signature"  # the key in a JSON object that is signed
_HASHES = {EC_256: hashes.SHA256, EC_384: hashes.SHA384}
_SHORT = Value("a text", lambda given: isinstance(given, str) and 0 < len(given) <= 4096)
FIELDS: dict[str, Value] = {
    "format": one_of(FORMAT),
    "algorithm": one_of(ED25519, EC_256, EC_384),
    "public-key": _SHORT,
    "sha256": DIGEST,
    SIGNATURE: _SHORT,
}


class BadSignature(ValueError):
    """A signature does not fit; the text continues a sentence that begins "The signature"."""


def sign(data: bytes, key: PrivateKey) -> dict[str, Any]:
    """Return the signature of some bytes, as JSON; those bytes are signed as they are."""
    if isinstance(key, Ed25519PrivateKey):
        algorithm, made = ED25519, key.sign(data)
    else:
        algorithm = EC_256 if key.curve.name == "secp256r1" else EC_384
        made = key.sign(data, ec.ECDSA(_HASHES[algorithm]()))
    return {
        "format": FORMAT,
        "algorithm": algorithm,
        "public-key": signer_of(key.public_key()).public_key,
        "sha256": hashlib.sha256(data).hexdigest(),
        SIGNATURE: base64.b64encode(made).decode("ascii"),
    }


def check(data: bytes, body: Mapping[str, Any]) -> Signer:
    """Return who signed some bytes.

    Parameters
    ----------
    data
        The bytes.
    body
        What ``sign`` returned, or what somebody else says it did.

    Raises
    ------
    BadSignature
        It is not well-formed, of another kind, or of other bytes.
    """
    if body.keys() != FIELDS.keys():
        raise BadSignature(f"has to have just the fields {', '.join(FIELDS)}")
    for name, value in FIELDS.items():
        if not value.fits(body[name]):
            raise BadSignature(f"has a {name} that is not {value.allowed}")
    if hashlib.sha256(data).hexdigest() != body["sha256"]:
        raise BadSignature("is of other bytes: they were changed after it was made")
    try:
        key = read_public(body["public-key"])
        made = base64.b64decode(body[SIGNATURE], validate=True)
        _verify(key, body["algorithm"], made, data)
    except (InvalidSignature, ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, BadSignature):
            raise
        raise BadSignature("does not fit its public key") from None
    return signer_of(key)


def _verify(key: PublicKey, algorithm: str, made: bytes, data: bytes) -> None:
    if isinstance(key, Ed25519PublicKey):
        own = ED25519
    else:
        own = EC_256 if key.curve.name == "secp256r1" else EC_384
    if algorithm != own:
        raise BadSignature(f"says {algorithm}, and its public key is for {own}")
    if isinstance(key, Ed25519PublicKey):
        key.verify(made, data)
    else:
        key.verify(made, data, ec.ECDSA(_HASHES[own]()))


def sign_object(body: Mapping[str, Any], key: PrivateKey) -> dict[str, Any]:
    """Return a JSON object, such as a report, with a signature of everything else in it."""
    return {**body, SIGNATURE: sign(_bytes(body), key)}


def check_object(body: Mapping[str, Any]) -> Signer | None:
    """Return who signed a JSON object; None where it has no signature.

    Raises
    ------
    BadSignature
        It has one that does not fit.
    """
    made = body.get(SIGNATURE)
    if made is None:
        return None
    if not isinstance(made, dict):
        raise BadSignature("is no JSON object")
    return check(_bytes(body), made)


def _bytes(body: Mapping[str, Any]) -> bytes:
    rest = {name: value for name, value in body.items() if name != SIGNATURE}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
