"""Signed tokens (JWT, RFC 7519): checked with one public key and one algorithm, whatever the token says of itself.

Claims, all required: `sub`, the identity's name; `aud`, this deployment's audience; `exp`; `roles` and `projects`,
lists as in the tokens file (`["*"]`: all projects). `iss` must be the configured one where one is configured; `nbf` and
`iat` are heeded where they are there. Clocks may differ by five seconds.
"""

import logging
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from service_kit.errors import Unauthenticated
from service_kit.identity import Grant, Identity
from service_kit.rereading import FileUnusable, Reread, read_bytes

_CLOCKS_DIFFER_S = 5.0
_MIN_RSA_BITS = 2048
_logger = logging.getLogger(__name__)


class _Claims(Grant):
    sub: str


class JwtIdentities:
    """Identities by the claims of tokens that are signed. Raises FileUnusable where the key does not fit."""

    def __init__(self, key_file: Path, algorithm: str, audience: str, issuer: str) -> None:
        self._key = Reread([key_file], lambda: read_key(key_file, algorithm))
        self._algorithm, self._audience, self._issuer = algorithm, audience, issuer

    def of_token(self, token: str) -> Identity:
        """Who a token says its bearer is. Raises Unauthenticated."""
        try:
            claims = _Claims.model_validate(
                jwt.decode(
                    token,
                    self._key.value(),
                    algorithms=[self._algorithm],
                    audience=self._audience,
                    issuer=self._issuer or None,
                    leeway=_CLOCKS_DIFFER_S,
                    options={"require": ["sub", "aud", "exp", *(["iss"] if self._issuer else [])]},
                )
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("TOKEN_EXPIRED", "the token has expired; get a new one") from None
        except Exception as error:
            # Whatever a stranger sends, it is no token; texts of the parsers might repeat parts of it.
            _logger.info("a token was refused: %s", type(error).__name__)
            raise Unauthenticated("TOKEN_INVALID", "the token is not one that is known here") from None
        return claims.identity(claims.sub)


def read_key(path: Path, algorithm: str) -> Any:
    """The public key that an algorithm's signatures are checked with. Raises FileUnusable."""
    body = read_bytes(path)
    if b"PRIVATE KEY" in body:
        raise FileUnusable(f"{path} holds a private key, which does not belong here; give the public one")
    try:
        key = load_pem_public_key(body)
        jwt.get_algorithm_by_name(algorithm).prepare_key(body)
    except (ValueError, TypeError, UnsupportedAlgorithm, jwt.PyJWTError):
        raise FileUnusable(f"{path} holds no public key in PEM for {algorithm}") from None
    if isinstance(key, RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise FileUnusable(f"{path} holds an RSA key of {key.key_size} bits; {_MIN_RSA_BITS} are the least")
    return key
