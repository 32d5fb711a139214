"""Certificates for 127.0.0.1, made anew: as a server of one's own has them."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PRIVATE_CA_HASH = "cb0faf46"
"""What ``openssl x509 -subject_hash`` says of it: its file's name in a folder of certificates."""
_DAY = datetime.timedelta(days=1)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate that is its own authority: paths of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("mock", key, "mock", key, authority=True)
    return _write(folder / "cert.pem", certificate), _write_key(folder / "key.pem", key)


def private_ca(folder: Path, *, expired: bool = False) -> tuple[Path, Path, Path]:
    """A private authority and a server's certificate by it: paths of CA, certificate and key."""
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = _certificate("private CA", ca_key, "private CA", ca_key, authority=True)
    server = _certificate("mock", key, "private CA", ca_key, authority=False, expired=expired)
    return (
        _write(folder / "ca.pem", ca),
        _write(folder / "cert.pem", server),
        _write_key(folder / "key.pem", key),
    )


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    expired: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _DAY)
        .not_valid_after(now - _DAY if expired else now + _DAY)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path
