"""Certificates for TLS, and the keys that SuperNodes prove themselves with."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flowertune.base.errors import UserError

THIS_MACHINE = ("localhost", "127.0.0.1")
DAYS = 30
SECRET = 0o600  # for the owner alone


@dataclass(frozen=True)
class Certificates:
    """The files of TLS: whom to trust, and what the SuperLink shows and keeps secret."""

    ca: Path
    certificate: Path
    key: Path


def make_certificates(folder: Path, hosts: Sequence[str] = THIS_MACHINE) -> Certificates:
    """Make a certificate authority and one certificate for a SuperLink; the authority's own key
    is not kept, so nobody can make a second certificate with it.

    Parameters
    ----------
    hosts
        The names and addresses that the SuperLink is reached by. It has to be reached by
        127.0.0.1 as well: that is how it reaches its own ServerApps.

    Raises
    ------
    UserError
        If ``folder`` holds one of the files already.
    """
    authority, key = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flowertune federation")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flowertune SuperLink")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    ca = (
        _builder(issuer, issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False)
        .sign(authority, hashes.SHA256())
    )
    names = [_name_of(host) for host in dict.fromkeys((*hosts, *THIS_MACHINE))]
    certificate = (
        _builder(subject, issuer, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False
        )
        .sign(authority, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    pem = serialization.Encoding.PEM
    made = Certificates(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    _write_new(
        made.key,
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        SECRET,
    )
    _write_new(made.ca, ca.public_bytes(pem))
    _write_new(made.certificate, certificate.public_bytes(pem))
    return made


def make_supernode_key(folder: Path, number: int) -> Path:
    """Make a SuperNode's private key (P-384) and, beside it, ``.pub`` for the SuperLink.

    Raises
    ------
    UserError
        If ``folder`` holds one of the files already.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    private = folder / f"supernode-{number}.key"
    folder.mkdir(parents=True, exist_ok=True)
    _write_new(
        private,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        ),
        SECRET,
    )
    _write_new(
        public_of(private),
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        + b"\n",
    )
    return private


def public_of(private: Path) -> Path:
    """Return the file of the public key that belongs to a private one."""
    return private.with_suffix(".pub")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # clocks of two machines differ a little
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
    )


def _name_of(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise UserError(
            f"--host is {host!r}; use an address, or a name in ASCII letters (xn--… for others)."
        ) from None


def _write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise UserError(
            f"{path} is there already, and keys in use are not replaced; name another folder, or "
            "remove the files in this one."
        ) from None
    with open(descriptor, "wb") as file:
        file.write(content)
