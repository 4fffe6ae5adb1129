"""Signatures: what was signed, by whom, and everything that does not fit."""

import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flowertune.base.errors import UserError
from submissions.signing import keys, signature

DATA = b"0123  a\n4567  b\n"
KEYS = {
    "ed25519": Ed25519PrivateKey.generate,
    "ecdsa-p256-sha256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384-sha384": lambda: ec.generate_private_key(ec.SECP384R1()),
}
PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
OPENSSH = serialization.PrivateFormat.OpenSSH
OPEN = serialization.NoEncryption()


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("form", [PKCS8, OPENSSH])
def test_what_a_key_signed_is_checked_by_its_public_one(algorithm, form, tmp_path):
    key = KEYS[algorithm]()
    file = tmp_path / "key"
    file.write_bytes(key.private_bytes(PEM, form, OPEN))
    body = json.loads(json.dumps(signature.sign(DATA, keys.private_key(file))))
    assert body["algorithm"] == algorithm
    signer = signature.check(DATA, body)
    assert signer == keys.signer_of(key.public_key())
    public = tmp_path / "key.pub"
    public.write_text(signer.public_key)
    assert keys.signer_of(keys.public_key(public)) == signer


def test_a_new_key_is_the_owners_alone_and_never_replaced(tmp_path):
    file = tmp_path / "keys" / "mine"
    signer = keys.new_key(file)
    assert file.stat().st_mode & 0o077 == 0
    assert keys.signer_of(keys.private_key(file).public_key()) == signer
    assert keys.signer_of(keys.public_key(file.with_name("mine.pub"))) == signer
    before = file.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        keys.new_key(file)
    assert file.read_bytes() == before


def changed(body, **fields):
    return {**body, **fields}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b, o: changed(b, signature=o["signature"]), "does not fit its public key"),
        (lambda b, o: {**changed(b), "public-key": o["public-key"]}, "does not fit its public key"),
        (lambda b, o: changed(b, algorithm="ecdsa-p256-sha256"), "its public key is for ed25519"),
        (lambda b, o: changed(b, algorithm="none"), "algorithm"),
        (lambda b, o: changed(b, sha256="0" * 64), "of other bytes"),
        (lambda b, o: changed(b, signature="%%"), "does not fit its public key"),
        (lambda b, o: changed(b, signature=""), "signature that is not a text"),
        (lambda b, o: {**b, "public-key": "-----BEGIN"}, "does not fit its public key"),
        (lambda b, o: {**b, "public-key": "x" * 5000}, "public-key"),
        (lambda b, o: changed(b, format=True), "format"),
        (lambda b, o: changed(b, more=1), "just the fields"),
        (lambda b, o: {k: v for k, v in b.items() if k != "sha256"}, "just the fields"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(change, said):
    own, other = (signature.sign(DATA, KEYS["ed25519"]()) for _ in range(2))
    with pytest.raises(signature.BadSignature, match=said):
        signature.check(DATA, change(own, other))


def test_other_bytes_are_refused():
    body = signature.sign(DATA, KEYS["ed25519"]())
    with pytest.raises(signature.BadSignature, match="of other bytes"):
        signature.check(DATA + b" ", body)


def test_a_report_carries_its_signature():
    key = KEYS["ecdsa-p256-sha256"]()
    report = {"format": 1, "valid": True, "facts": {"ö": [1, 2.5, None]}}
    signed = json.loads(json.dumps(signature.sign_object(report, key)))
    assert signature.check_object(signed) == keys.signer_of(key.public_key())
    assert signature.check_object(report) is None
    with pytest.raises(signature.BadSignature, match="of other bytes"):
        signature.check_object({**signed, "valid": False})
    with pytest.raises(signature.BadSignature, match="no JSON object"):
        signature.check_object({**signed, "signature": "mine"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"hello", "holds no private key"),
        (b"", "holds no private key"),
        (rsa.generate_private_key(65537, 2048).private_bytes(PEM, PKCS8, OPEN), "of another kind"),
        (
            ec.generate_private_key(ec.SECP256K1()).private_bytes(PEM, PKCS8, OPEN),
            "of another kind",
        ),
        (b"x" * 20_000, "at most"),
    ],
)
def test_a_file_without_a_usable_key_is_named(content, said, tmp_path):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        keys.private_key(file)
    assert str(file) in str(raised.value)


def test_a_passphrase_comes_from_the_environment(tmp_path, monkeypatch):
    key, file = KEYS["ed25519"](), tmp_path / "key"
    file.write_bytes(
        key.private_bytes(PEM, PKCS8, serialization.BestAvailableEncryption(b"a secret"))
    )
    monkeypatch.delenv(keys.PASSPHRASE, raising=False)
    with pytest.raises(UserError, match=f"put its passphrase into {keys.PASSPHRASE}"):
        keys.private_key(file)
    monkeypatch.setenv(keys.PASSPHRASE, "another")
    with pytest.raises(UserError, match="holds no private key"):
        keys.private_key(file)
    monkeypatch.setenv(keys.PASSPHRASE, "a secret")
    assert keys.signer_of(keys.private_key(file).public_key()) == keys.signer_of(key.public_key())


def test_a_missing_key_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="--new-key"):
        keys.private_key(tmp_path / "none")


def test_model_signing_covers_every_file(tmp_path):
    """OpenSSF's own library, where the extra is installed."""
    pytest.importorskip("model_signing")
    from submissions.signing import model_signing

    key, folder = ec.generate_private_key(ec.SECP256R1()), tmp_path / "bundle"
    (folder / "adapter").mkdir(parents=True)
    for name in ("SHA256SUMS", "adapter/.gitignore", "adapter/adapter_model.safetensors"):
        (folder / name).write_text(name)
    private, public, other = (tmp_path / name for name in ("key", "key.pub", "other.pub"))
    private.write_bytes(key.private_bytes(PEM, PKCS8, OPEN))
    public.write_text(keys.public_pem(key.public_key()))
    other.write_text(keys.public_pem(ec.generate_private_key(ec.SECP256R1()).public_key()))
    model_signing.sign_folder(folder, private)
    assert model_signing.check_folder(folder, public) is None
    assert "mismatch" in (model_signing.check_folder(folder, other) or "")
    for path in [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sig"]:
        before = path.read_bytes()
        path.write_bytes(before + b" ")
        assert model_signing.check_folder(folder, public) is not None
        path.write_bytes(before)
    (folder / "more").write_text("x")
    assert model_signing.check_folder(folder, public) is not None
    with pytest.raises(UserError, match="cannot sign a model"):
        model_signing.sign_folder(folder, public)


def test_signatures_need_no_torch():
    code = "import submissions.signing.signature, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
