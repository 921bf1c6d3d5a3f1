"""C2PA content credentials (specification 2.x): a signed manifest in an image's file that says a model made it.

Its one rule: where the operator signs, no file leaves without a valid signature. What is wrong with the certificate or
the key stops the start; the key itself appears in no text.
"""

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from PIL import Image

from inference_service.delivery import FILE_FORMATS, MOST_CREDENTIALS_BYTES, FileFormat
from inference_service.image_file import GENERATOR, MADE_BY_A_MODEL, media_type
from inference_service.settings import InferenceSettings
from service_kit.serving import StartError
from service_kit.settings import PREFIX

_MIN_RSA_BITS = 2_048
_KEYS = "an unencrypted PEM key: P-256, P-384, Ed25519, or RSA of at least 2048 bits"
# No thumbnail: it would be larger than the manifest, and the file is its own picture.
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}
_MADE = {
    "action": "c2pa.created",
    "digitalSourceType": MADE_BY_A_MODEL,
    "softwareAgent": {"name": GENERATOR},
}
# Nothing about prompts or callers, which are in the file already, and nothing about whether others may train on the
# picture, which is for its owner to say.
_MANIFEST = json.dumps(
    {
        "claim_generator_info": [{"name": GENERATOR}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [_MADE]}}],
    }
)


class ContentCredentials:
    """Signs image files. Safe for use by several threads.

    algorithm: `es256`, `es384`, `ps256` or `ed25519`. certificates: PEM, the signer's first. key: PEM, PKCS#8.
    timestamp_url: an RFC 3161 authority that is asked for each file; empty for none, and then nothing is asked of any
    network. Raises c2pa.C2paError where the library does not take them.
    """

    def __init__(self, algorithm: str, certificates: bytes, key: bytes, timestamp_url: str) -> None:
        info = c2pa.C2paSignerInfo(algorithm, certificates, key, timestamp_url or None)
        self._context = c2pa.Context(c2pa.Settings.from_dict(_SETTINGS), c2pa.Signer.from_info(info))

    def sign(self, content: bytes, file_format: FileFormat) -> bytes:
        """The file with a signed manifest in it, all else as it was. Raises c2pa.C2paError, as when the certificate has
        expired meanwhile."""
        signed = io.BytesIO()
        c2pa.Builder(_MANIFEST, self._context).sign(media_type(file_format), io.BytesIO(content), signed)
        return signed.getvalue()


def load_content_credentials(settings: InferenceSettings) -> ContentCredentials:
    """What the settings ask for, tried out on a file of each format. Raises StartError that names the variable."""
    certificates_file, key_file = settings.inference_c2pa_certificates, settings.inference_c2pa_key
    if certificates_file is None or key_file is None:
        missing = "CERTIFICATES" if certificates_file is None else "KEY"
        raise StartError(f"{PREFIX}INFERENCE_C2PA_{missing}: missing; signing takes a certificate and its key")
    about_certificates = f"{PREFIX}INFERENCE_C2PA_CERTIFICATES={certificates_file}"
    about_key = f"{PREFIX}INFERENCE_C2PA_KEY={key_file}"
    certificates = _read(certificates_file, about_certificates)
    signer = _signer_certificate(certificates, about_certificates)
    key = _key(_read(key_file, about_key), about_key)
    algorithm = _algorithm(key)
    if algorithm is None:
        raise StartError(f"{about_key}: found a key of another kind; allowed is {_KEYS}")
    if key.public_key() != signer.public_key():
        raise StartError(f"{about_key}: does not belong to the first certificate of {certificates_file}")

    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    credentials = _tried(algorithm, certificates, pem, "", about_certificates)
    url = settings.inference_c2pa_timestamp_url
    if url:
        credentials = _tried(algorithm, certificates, pem, url, f"{PREFIX}INFERENCE_C2PA_TIMESTAMP_URL={url}")
    return credentials


def _read(file: Path, about: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartError(f"{about}: {error.strerror}") from error


def _signer_certificate(certificates: bytes, about: str) -> x509.Certificate:
    try:
        signer = x509.load_pem_x509_certificates(certificates)[0]
    except ValueError as error:
        raise StartError(f"{about}: allowed are PEM certificates, the signer's first, without the root") from error
    now = datetime.now(UTC)
    if not signer.not_valid_before_utc <= now <= signer.not_valid_after_utc:
        raise StartError(
            f"{about}: is valid from {signer.not_valid_before_utc:%Y-%m-%d} to {signer.not_valid_after_utc:%Y-%m-%d}, "
            "which is not now; renew it"
        )
    return signer


def _key(pem: bytes, about: str) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        # What the library says may quote what it read.
        raise StartError(f"{about}: allowed is {_KEYS}") from None


def _algorithm(key: PrivateKeyTypes) -> str | None:
    """What C2PA signs with such a key; None for a key that it does not take."""
    match key:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return "es256"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP384R1()):
            return "es384"
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
        case rsa.RSAPrivateKey(key_size=bits) if bits >= _MIN_RSA_BITS:
            return "ps256"
    return None


def _tried(algorithm: str, certificates: bytes, key: bytes, timestamp_url: str, about: str) -> ContentCredentials:
    """Credentials that have signed a small file of each format, validly and within the bound of their size."""
    try:
        credentials = ContentCredentials(algorithm, certificates, key, timestamp_url)
        for file_format in FILE_FORMATS:
            plain = io.BytesIO()
            Image.new("RGB", (16, 16)).save(plain, file_format.upper())
            signed = credentials.sign(plain.getvalue(), file_format)
            state = c2pa.Reader(media_type(file_format), io.BytesIO(signed)).get_validation_state()
            if state not in ("Valid", "Trusted"):
                raise StartError(
                    f"{about}: a file signed with it is {state}; C2PA asks for a certificate of its profile"
                )
            growth = len(signed) - len(plain.getvalue())
            if growth > MOST_CREDENTIALS_BYTES:
                bound = MOST_CREDENTIALS_BYTES
                raise StartError(f"{about}: signing adds {growth} bytes; allowed are {bound}: shorten the chain")
    except c2pa.C2paError as error:
        raise StartError(f"{about}: {error}") from error
    return credentials
