"""What a server lets in, built from its settings: the transport of its main port, and the check of every call.

Its one rule: settings that go only half of a way stop the start; nothing is let in because a setting was forgotten.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from service_kit.access_interceptor import AccessInterceptor
from service_kit.authentication import Authentication
from service_kit.identities_file import read_identities
from service_kit.jwt_identity import JwtIdentities
from service_kit.rereading import FileUnusable, Reread
from service_kit.settings import PREFIX, AccessSettings, SettingsError, is_loopback
from service_kit.tls import server_credentials

T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Access:
    """How the main port is served. Health has a plaintext port of its own, for probes."""

    credentials: grpc.ServerCredentials | None
    """None: plaintext."""
    interceptor: AccessInterceptor | None
    """None: whoever reaches the port may do everything."""

    def warn(self, address: str) -> None:
        """Say in the log what others than this machine could do at `address`."""
        if is_loopback(address):
            return
        if self.interceptor is None and self.credentials is None:
            _logger.warning(
                "whoever reaches %s may do everything: neither %sTOKENS_FILE nor %sJWT_KEY_FILE is set",
                address,
                PREFIX,
                PREFIX,
            )
        elif self.interceptor is None:
            _logger.warning(
                "every client that TLS at %s accepts may do everything: identities are not asked for", address
            )
        elif self.credentials is None:
            _logger.warning("tokens travel to %s in plaintext: %sTLS_CERTIFICATE is not set", address, PREFIX)


def open_access(settings: AccessSettings) -> Access:
    """Read every file that the settings name. Raises SettingsError with all that is wrong, by variable."""
    complaints = _half_ways(settings)
    credentials, listed, signed = None, None, None
    if settings.tls_certificate and settings.tls_key:
        pair = settings.tls_certificate, settings.tls_key
        credentials = _opened("TLS_CERTIFICATE", complaints, lambda: server_credentials(*pair, settings.tls_client_ca))
    if settings.tokens_file:
        file: Path = settings.tokens_file
        listed = _opened("TOKENS_FILE", complaints, lambda: Reread([file], lambda: read_identities(file)))
    if settings.jwt_key_file and settings.jwt_algorithm and settings.jwt_audience:
        expected = settings.jwt_key_file, settings.jwt_algorithm, settings.jwt_audience, settings.jwt_issuer
        signed = _opened("JWT_KEY_FILE", complaints, lambda: JwtIdentities(*expected))
    if complaints:
        raise SettingsError("\n".join(complaints))
    return Access(credentials, AccessInterceptor(Authentication(listed, signed)) if listed or signed else None)


def _half_ways(settings: AccessSettings) -> list[str]:
    complaints = []
    for needed, beside in (
        (("tls_certificate", "tls_key"), ("tls_certificate", "tls_key", "tls_client_ca")),
        (
            ("jwt_key_file", "jwt_algorithm", "jwt_audience"),
            ("jwt_key_file", "jwt_algorithm", "jwt_audience", "jwt_issuer"),
        ),
    ):
        given = [name for name in beside if getattr(settings, name)]
        complaints += [
            f"{PREFIX}{name.upper()}: missing beside {', '.join(PREFIX + other.upper() for other in given)}"
            for name in needed
            if given and name not in given
        ]
    return complaints


def _opened(variable: str, complaints: list[str], build: Callable[[], T]) -> T | None:
    try:
        return build()
    except FileUnusable as error:
        complaints.append(f"{PREFIX}{variable}: {error}")
        return None
