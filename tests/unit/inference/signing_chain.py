"""Certificates for tests: a root of our own and signers below it, with the profile that C2PA asks for, or without."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

_DAY = timedelta(days=1)
EMAIL = (ExtendedKeyUsageOID.EMAIL_PROTECTION,)
"""A purpose that C2PA's certificate profile takes."""


@dataclass(frozen=True)
class SigningChain:
    """PEM texts: the signer's certificate with those above it, its key, and the root."""

    certificates: bytes
    key: bytes
    root: str

    def write(self, folder: Path) -> tuple[Path, Path]:
        """The files of the certificates and of the key."""
        files = folder / "certificates.pem", folder / "key.pem"
        files[0].write_bytes(self.certificates)
        files[1].write_bytes(self.key)
        return files


def make_chain(
    key: CertificateIssuerPrivateKeyTypes | None = None,
    days_left: int = 10,
    purposes: Sequence[ObjectIdentifier] = EMAIL,
    padding: int = 0,
) -> SigningChain:
    """A chain of two. key: the signer's; P-256 by default. padding: bytes of an extension that nobody knows."""
    key, root_key = key or ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = (
        _builder("Root", root_key, 20)
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(_usage(signs_certificates=True), True)
        .sign(root_key, hashes.SHA256())
    )
    builder = (
        _builder("Signer", key, days_left)
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(_usage(signs_certificates=False), True)
        .add_extension(x509.ExtendedKeyUsage(purposes), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
    )
    if padding:
        unknown = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(padding))
        builder = builder.add_extension(unknown, False)
    signer = builder.sign(root_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return SigningChain(signer.public_bytes(pem) + root.public_bytes(pem), pem_of(key), root.public_bytes(pem).decode())


def pem_of(key: CertificateIssuerPrivateKeyTypes, password: bytes = b"") -> bytes:
    """PKCS#8, encrypted where a password is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _builder(name: str, key: CertificateIssuerPrivateKeyTypes, days_left: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("Root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 30 * _DAY)
        .not_valid_after(now + days_left * _DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )


def _name(name: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"), x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
