"""A bundle's signatures, where it has any: whose keys signed its sums, and all of its files."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from flowertune.base.errors import UserError
from flowertune.base.untrusted import UnusableFile, strict_json
from flowertune.rules.values import shown
from submissions import layout
from submissions.signing import keys as known
from submissions.signing import model_signing
from submissions.signing.keys import PublicKey
from submissions.signing.signature import BadSignature
from submissions.signing.signature import check as check_signature
from submissions.verify.case import Case

_MODEL = layout.MODEL_SIGNATURE


def check(case: Case) -> None:
    """Check the signature of SHA256SUMS and OpenSSF's of all files, as far as they are there.

    A bundle without signatures is as good as one with them, unless the organizer gave keys.
    """
    own = _of_sums(case)
    signed = {case.facts.get("signed-by")} if own is not None else set()
    if _MODEL in case.bundle:
        _of_model(case, own)
        signed.add(case.facts.get("model-signed-by"))
    wanted = {known.signer_of(key).fingerprint for key in case.keys}
    if wanted and not wanted & signed:
        by = ", ".join(f"{one[:12]}" for one in sorted(filter(None, signed))) or "nobody"
        case.error(
            "structure", "signature", "",
            f"The bundle has to be signed by the key {', '.join(k[:12] for k in sorted(wanted))}, "
            f"and is signed by {by}.",
        )  # fmt: skip


def _of_sums(case: Case) -> PublicKey | None:
    """Return the key that signed SHA256SUMS; None where no signature fits."""
    bundle, name = case.bundle, layout.SIGNATURE
    if name not in bundle or layout.SUMS not in bundle:
        return None
    try:
        body = bundle.json(name)
        signer = check_signature(bundle.path(layout.SUMS).read_bytes(), body)
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
    except BadSignature as error:
        case.error("structure", "signature", name, f"The signature {error}.")
    else:
        case.facts["signed-by"] = signer.fingerprint
        return known.read_public(signer.public_key)
    return None


def _of_model(case: Case, own: PublicKey | None) -> None:
    """Hold model.sig to the bundle's files, and to a key, where it is of one that is known."""
    try:
        hint, resources = _statement(case.bundle.json(_MODEL))
    except UnusableFile as error:
        case.error("structure", "model-signature", _MODEL, f"The file {error}.")
        return
    sums = {name: digest for name, digest in case.bundle.sums.items() if name != _MODEL}
    for name in sorted(sums.keys() | resources.keys()):
        if resources.get(name) != sums.get(name):
            case.error(
                "structure", "model-signature", _MODEL,
                f"The signature is of {shown(name)} with the sha256 {shown(resources.get(name))}, "
                f"and the bundle's has {shown(sums.get(name))}.",
            )  # fmt: skip
            return
    candidates = [key for key in (*case.keys, own) if isinstance(key, ec.EllipticCurvePublicKey)]
    key = next((key for key in candidates if _hint(key) == hint), None)
    if key is None:
        case.note(
            "structure", "model-signature", _MODEL,
            f"Not checked: whose key made it ({shown(hint)}) is not known; --key FILE names one.",
        )  # fmt: skip
        return
    try:
        reason = _checked(case.bundle.folder, key)
    except UserError as error:
        case.note("structure", "model-signature", _MODEL, f"Not checked: {error}")
        return
    if reason is not None:
        case.error(
            "structure", "model-signature", _MODEL,
            f"The signature does not fit the files and the key it names: {reason}.",
        )  # fmt: skip
        return
    case.facts["model-signed-by"] = known.signer_of(key).fingerprint


def _checked(folder: Path, key: PublicKey) -> str | None:
    with TemporaryDirectory(prefix="flowertune-key-") as name:
        file = Path(name) / "key.pub"
        file.write_text(known.public_pem(key), "ascii")
        return model_signing.check_folder(folder, file)


def _hint(key: PublicKey) -> str:
    """Return how a Sigstore bundle names a key: by the sha256 of its PEM form."""
    return hashlib.sha256(known.public_pem(key).encode("ascii")).hexdigest()


def _statement(body: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the key that a Sigstore bundle names, and the sha256 of each file that it is of.

    Raises
    ------
    UnusableFile
        It is no such signature of a model.
    """
    try:
        hint = body["verificationMaterial"]["publicKey"]["hint"]
        payload = base64.b64decode(body["dsseEnvelope"]["payload"], validate=True)
        predicate = strict_json(payload)["predicate"]
        found = predicate["resources"]
        pairs = [(one["name"], one["digest"]) for one in found if one["algorithm"] == "sha256"]
        texts = [hint, *(text for pair in pairs for text in pair)]
        whole = len(dict(pairs)) == len(found) and all(isinstance(one, str) for one in texts)
    except (KeyError, TypeError, IndexError, ValueError, binascii.Error):
        whole, hint, pairs = False, "", []
    if not whole:
        raise UnusableFile("is no signature of a model by a key, with a sha256 for each file")
    return hint, dict(pairs)
