"""Certificates that `mas certs` would never issue."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def issue(
    authority: Path,
    to: Path,
    names: list[x509.GeneralName],
    *,
    not_after: datetime.timedelta = datetime.timedelta(days=1),
    usage: x509.ObjectIdentifier = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH,
) -> tuple[Path, Path]:
    """A leaf of the authority in the folder with these alternative names; certificate and key."""
    ca = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    return _write(to, ca.subject, ca_key, names, not_after, usage)


def issue_by_another_authority(to: Path, names: list[x509.GeneralName]) -> tuple[Path, Path]:
    """A leaf that some other authority issued."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another authority")])
    return _write(to, subject, ec.generate_private_key(ec.SECP256R1()), names, datetime.timedelta(days=1))


def _write(
    to: Path,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    names: list[x509.GeneralName],
    not_after: datetime.timedelta,
    usage: x509.ObjectIdentifier = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH,
) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test's leaf")]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + not_after)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    cert_file, key_file = to.with_suffix(".pem"), to.with_suffix(".key")
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key_file.chmod(0o600)
    return cert_file, key_file


def uri(value: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(value)


def dns(value: str) -> x509.GeneralName:
    return x509.DNSName(value)
