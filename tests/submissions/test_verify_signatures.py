"""Signatures under verification: wrong, foreign, stripped, and what cannot be checked."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from submissions import layout
from submissions.findings import Report
from submissions.signing import keys, model_signing, signature
from submissions.verify import cli
from submissions.verify.check import verify
from tests.submissions.on_record import on_record
from tests.submissions.tampered import Edit
from tests.submissions.valid import valid_files

OWN, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
EDWARDS = Ed25519PrivateKey.generate()


@pytest.fixture(scope="module", autouse=True)
def _published() -> Iterator[None]:
    with on_record():
        yield


@pytest.fixture
def edit(tmp_path: Path) -> Edit:
    return Edit(valid_files(), tmp_path)


def look(edit: Edit, *given: Any) -> Report:
    file = edit.folder / "bundle.zip"
    file.write_bytes(edit.zip())
    return verify(file, keys=[key.public_key() for key in given])


def found(report: Report) -> set[tuple[str, str]]:
    known = ("signature", "model-signature")
    return {(f.level, f.check) for f in report.findings if f.check in known}


def signed(edit: Edit, key: Any) -> None:
    body = signature.sign(edit.files[layout.SUMS], key)
    edit.files[layout.SIGNATURE] = json.dumps(body).encode()


def model_signed(edit: Edit, key: Any = OWN) -> None:
    """Write model.sig; by hand where OpenSSF's package is not installed, with no signature."""
    edit.files.pop(layout.MODEL_SIGNATURE, None)
    sums = {name: signature_of(content) for name, content in edit.files.items()}
    resources = [{"name": n, "digest": d, "algorithm": "sha256"} for n, d in sorted(sums.items())]
    payload = json.dumps({"predicate": {"resources": resources}}).encode()
    pem = keys.public_pem(key.public_key()).encode()
    body = {
        "verificationMaterial": {"publicKey": {"hint": signature_of(pem)}},
        "dsseEnvelope": {"payload": base64.b64encode(payload).decode()},
    }
    edit.files[layout.MODEL_SIGNATURE] = json.dumps(body).encode()


def signature_of(content: bytes) -> str:
    return signature.sign(content, EDWARDS)["sha256"]


@pytest.fixture
def uninstalled(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise model_signing.UserError("OpenSSF model signing is not installed.")

    monkeypatch.setattr(model_signing, "_package", missing)


def test_a_bundle_is_signed_by_the_key_that_the_organizer_gave(edit: Edit) -> None:
    signed(edit, EDWARDS)
    assert look(edit).valid
    assert look(edit, EDWARDS).valid
    assert look(edit, OTHER, EDWARDS).valid
    foreign = look(edit, OTHER)
    assert found(foreign) == {("error", "signature")}
    assert "is signed by " + keys.signer_of(EDWARDS.public_key()).fingerprint[:12] in foreign.text()


def test_stripped_signatures_are_missed_where_a_key_was_given(edit: Edit) -> None:
    assert look(edit).valid
    report = look(edit, OWN)
    assert found(report) == {("error", "signature")}
    assert "is signed by nobody" in report.text()


def test_the_command_takes_keys(
    edit: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signed(edit, EDWARDS)
    file, own, other = (tmp_path / name for name in ("bundle.zip", "own.pub", "other.pub"))
    file.write_bytes(edit.zip())
    own.write_text(keys.public_pem(EDWARDS.public_key()))
    other.write_text(keys.public_pem(OTHER.public_key()))
    assert cli.main([str(file), "--key", str(own)]) == 0
    assert cli.main([str(file), "--key", str(other)]) == 1
    assert cli.main([str(file), "--key", str(file)]) == 2
    assert "give a key's file" in capsys.readouterr().err


def test_without_the_package_or_a_key_a_model_signature_is_not_checked(
    edit: Edit, uninstalled: None
) -> None:
    model_signed(edit)
    report = look(edit)
    assert report.valid
    assert found(report) == {("note", "model-signature")}
    assert "Not checked: whose key made it" in report.text()
    signed(edit, OWN)
    model_signed(edit)
    report = look(edit)
    assert report.valid
    assert "Not checked: OpenSSF model signing is not installed." in report.text()
    assert "model-signed-by" not in report.facts


def _changed(edit: Edit, change: Callable[[dict[str, Any]], Any]) -> None:
    body = json.loads(edit.files[layout.MODEL_SIGNATURE])
    change(body)
    edit.files[layout.MODEL_SIGNATURE] = json.dumps(body).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda edit: edit.files.update({layout.CARD: edit.files[layout.CARD] + b"\n"}),
        lambda edit: signed(edit, EDWARDS),
        lambda edit: edit.files.update({layout.MODEL_SIGNATURE: b"{}"}),
        lambda edit: edit.files.update({layout.MODEL_SIGNATURE: b"["}),
        lambda edit: _changed(edit, lambda b: b["dsseEnvelope"].update(payload="%%")),
        lambda edit: _changed(edit, lambda b: b["dsseEnvelope"].update(payload="W10=")),
        lambda edit: _changed(edit, lambda b: b["verificationMaterial"].update(publicKey=[1])),
        lambda edit: _changed(
            edit, lambda b: b["verificationMaterial"]["publicKey"].update(hint={"a": 1})
        ),
    ],
)
def test_a_model_signature_of_other_files_is_found_without_the_package(
    change: Callable[[Edit], Any], edit: Edit
) -> None:
    model_signed(edit)
    change(edit)
    assert ("error", "model-signature") in found(look(edit))


def test_a_model_signature_is_checked_by_openssfs_own_library(edit: Edit, tmp_path: Path) -> None:
    """Where the extra is installed."""
    pytest.importorskip("model_signing")
    folder, key = tmp_path / "signed", tmp_path / "key"
    form = serialization.PrivateFormat.PKCS8
    open_ = serialization.NoEncryption()
    key.write_bytes(OWN.private_bytes(serialization.Encoding.PEM, form, open_))
    for name, content in edit.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    model_signing.sign_folder(folder, key)
    made = (folder / layout.MODEL_SIGNATURE).read_bytes()
    edit.files[layout.MODEL_SIGNATURE] = made
    report = look(edit, OWN)
    assert report.valid, report.text()
    assert report.facts["model-signed-by"] == keys.signer_of(OWN.public_key()).fingerprint
    assert found(look(edit)) == {("note", "model-signature")}
    assert found(look(edit, OTHER)) == {("note", "model-signature"), ("error", "signature")}
    # A signature that names one key, and was made with another.
    other = json.loads(made)
    hint = signature_of(keys.public_pem(OTHER.public_key()).encode())
    other["verificationMaterial"]["publicKey"]["hint"] = hint
    edit.files[layout.MODEL_SIGNATURE] = json.dumps(other).encode()
    assert ("error", "model-signature") in found(look(edit, OTHER))
