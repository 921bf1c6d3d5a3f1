"""Identities for tests: a tokens file, the tokens in it, and the interceptor that knows them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from service_kit.access import open_access
from service_kit.access_interceptor import AccessInterceptor
from service_kit.settings import AccessSettings


def token_of(name: str) -> str:
    """The token of an identity."""
    return f"{name}-token-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def listed(
    name: str, roles: Sequence[str], projects: Sequence[str], certificates: Sequence[str] = ()
) -> dict[str, object]:
    """An entry of the tokens file."""
    digest = hashlib.sha256(token_of(name).encode()).hexdigest()
    return {
        "name": name,
        "roles": list(roles),
        "projects": list(projects),
        "tokens_sha256": [digest],
        "certificates": list(certificates),
    }


def write_identities(path: Path, *entries: dict[str, object]) -> Path:
    """Write a tokens file."""
    path.write_text(json.dumps({"identities": entries}))
    return path


def interceptor(path: Path, *entries: dict[str, object]) -> AccessInterceptor:
    """The interceptor that knows these identities, from a tokens file at `path`."""
    found = open_access(AccessSettings(tokens_file=write_identities(path, *entries))).interceptor
    assert found is not None
    return found


def bearer(name: str) -> tuple[tuple[str, str], ...]:
    """Metadata of a call by that identity."""
    return (("authorization", f"Bearer {token_of(name)}"),)
