"""A bundle's signature, where it has one: whose key signed its sums."""

from flowertune.base.untrusted import UnusableFile
from submissions import layout
from submissions.findings import SIGNED_BY
from submissions.signing.signature import BadSignature
from submissions.signing.signature import check as check_signature
from submissions.verify.case import Case


def check(case: Case) -> None:
    """Check the signature of SHA256SUMS; a bundle without one is as good as one with it."""
    bundle, name = case.bundle, layout.SIGNATURE
    if layout.MODEL_SIGNATURE in bundle:
        case.note(
            "structure", "model-signature", layout.MODEL_SIGNATURE,
            "The signature of the model was not checked: `model_signing verify` does it.",
        )  # fmt: skip
    if name not in bundle or layout.SUMS not in bundle:
        return
    try:
        body = bundle.json(name)
        signer = check_signature(bundle.path(layout.SUMS).read_bytes(), body)
    except UnusableFile as error:
        case.error("structure", "unreadable", name, f"The file {error}.")
    except BadSignature as error:
        case.error("structure", "signature", name, f"The signature {error}.")
    else:
        case.facts[SIGNED_BY] = signer.fingerprint
