"""Who is calling: from the bearer token of a call, or else from the certificate of its connection.

Its one rule: a token that is brought decides alone; where it is no good, a good certificate does not help.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from service_kit.errors import Unauthenticated
from service_kit.identities_file import Identities
from service_kit.identity import Identity
from service_kit.jwt_identity import JwtIdentities
from service_kit.rereading import Reread

# As gRPC names them: the SPIFFE id, which is a URI too, and the subject alternative names.
_CERTIFICATE_NAMES = ("peer_spiffe_id", "x509_subject_alternative_name")
_SCHEME = "bearer "


@dataclass(frozen=True)
class Authentication:
    """What identities are known. At least one of both is there."""

    listed: Reread[Identities] | None
    signed: JwtIdentities | None

    def identify(
        self, metadata: Iterable[tuple[str, str | bytes]], connection: Mapping[str, Iterable[bytes]]
    ) -> Identity:
        """Who calls with this metadata over a connection with this auth context. Raises Unauthenticated."""
        brought = [value for key, value in metadata if key == "authorization"]
        if brought:
            return self._of_token(_token(brought))
        names = {name.decode(errors="replace") for kind in _CERTIFICATE_NAMES for name in connection.get(kind, ())}
        identity = self.listed.value().of_certificate(names) if self.listed else None
        if identity is not None:
            return identity
        if names:
            raise Unauthenticated(
                "CERTIFICATE_UNKNOWN", "the certificate names no identity that is known here, and there is no token"
            )
        raise Unauthenticated("TOKEN_MISSING", "who calls? send `authorization: Bearer {token}` as metadata")

    def _of_token(self, token: str) -> Identity:
        identity = self.listed.value().of_token(token) if self.listed else None
        if identity is not None:
            return identity
        if self.signed:
            return self.signed.of_token(token)
        raise Unauthenticated("TOKEN_INVALID", "the token is not one that is known here")


def _token(brought: list[str | bytes]) -> str:
    value = brought[0]
    if len(brought) != 1 or not isinstance(value, str) or not value.lower().startswith(_SCHEME):
        raise Unauthenticated("TOKEN_INVALID", "found no `authorization: Bearer {token}`, or several; allowed is one")
    return value[len(_SCHEME) :].strip()
