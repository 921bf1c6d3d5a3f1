"""How a client reaches a service and says who it is: TLS, and a token that is never shown.

Its one rule: a token leaves this machine over TLS or not at all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc

from personae.errors import InvalidRequest, Violation

Token = str | Callable[[], str]
"""A token, or what gives the present one: asked before every call, so it should be quick; it may not be a coroutine."""

_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")


@dataclass(frozen=True)
class Tls:
    """TLS to the services; as it stands, with the authorities that gRPC brings along. Files are PEM, read once."""

    roots: str | Path | None = None
    """File of the authorities that the server's certificate must come from."""
    certificate: str | Path | None = None
    """File of this client's own certificate, where the server requires one (mTLS); needs `key`."""
    key: str | Path | None = None
    """File of its private key."""
    server_name: str = ""
    """The name that the server's certificate must hold, where that is not the host of the address."""


@dataclass(frozen=True)
class Access:
    """What a connection needs beside its address."""

    tls: Tls | None = None
    token: Token | None = field(default=None, repr=False)

    def check(self, address: str) -> None:
        """Raise InvalidRequest where these do not go together, or would send the token in plaintext."""
        if self.tls and (self.tls.certificate is None) != (self.tls.key is None):
            raise InvalidRequest([Violation("tls", "a certificate needs its key, and a key its certificate")])
        if self.token is not None and self.tls is None and not _is_local(address):
            text = f"{address} is not this machine, and without tls=personae.Tls() the token would travel in plaintext"
            raise InvalidRequest([Violation("token", text)])

    def credentials(self) -> grpc.ChannelCredentials | None:
        """None: plaintext. Raises OSError for a file that cannot be read."""
        if self.tls is None:
            return None
        files = (self.tls.roots, self.tls.key, self.tls.certificate)
        return grpc.ssl_channel_credentials(*(Path(file).read_bytes() if file else None for file in files))

    def options(self) -> list[tuple[str, Any]]:
        """What the channel needs for it."""
        if self.tls is None:
            # A plaintext call with a token is meant for this machine; a proxy is none.
            return [("grpc.enable_http_proxy", 0)] if self.token is not None else []
        return [("grpc.ssl_target_name_override", self.tls.server_name)] if self.tls.server_name else []

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries. Raises InvalidRequest for a token that no call can carry, without showing it."""
        if self.token is None:
            return ()
        token = self.token if isinstance(self.token, str) else self.token()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidRequest(
                [Violation("token", "allowed are printable ASCII characters without spaces, one at least")]
            )
        return (("authorization", f"Bearer {token}"),)


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    for scheme in _SCHEMES:
        address = address.removeprefix(scheme)
    # `ipv4:` and `ipv6:` take several addresses.
    return all(_is_loopback(found.rpartition(":")[0].strip("[]")) for found in address.split(","))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
