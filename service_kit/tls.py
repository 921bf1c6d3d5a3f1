"""The server's side of TLS: certificate, key and client authorities from files, looked at before every handshake.

Its one rule: a certificate is used with its key only. While the files do not fit together, as half way through a
rotation, the pair from before stays; open connections keep what they began with.
"""

from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service_kit.rereading import FileUnusable, Reread, read_bytes


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Credentials that follow the files; with `client_ca` every client must have a certificate. Raises FileUnusable."""
    files = [certificate, key, *([client_ca] if client_ca else [])]
    reread = Reread(files, lambda: _read(certificate, key, client_ca))
    given = reread.value()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        found = reread.value()
        if found is given:
            return None
        given = found
        return found

    # None, which the stubs do not know, means that nothing changed.
    return grpc.dynamic_ssl_server_credentials(given, changed, client_ca is not None)  # type: ignore[arg-type]


def _read(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCertificateConfiguration:
    chain, key_bytes = read_bytes(certificate), read_bytes(key)
    public = _certificates(certificate, chain)[0].public_key()
    try:
        private = load_pem_private_key(key_bytes, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FileUnusable(f"{key} holds no private key in PEM without a password") from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != public.public_bytes(*form):
        raise FileUnusable(f"{key} is not the key of the certificate in {certificate}")
    authorities = None
    if client_ca is not None:
        authorities = read_bytes(client_ca)
        _certificates(client_ca, authorities)
    return grpc.ssl_server_certificate_configuration([(key_bytes, chain)], authorities)


def _certificates(path: Path, body: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(body)
    except ValueError:
        raise FileUnusable(f"{path} holds no certificates in PEM") from None
