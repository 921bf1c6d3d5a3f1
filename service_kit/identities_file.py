"""The tokens file (`PERSONAE_TOKENS_FILE`): identities, the SHA-256 of their tokens, the names in their certificates.

    {"identities": [{
      "name": "shop-backend",
      "roles": ["trainer", "generator"],
      "projects": ["shop"],
      "tokens_sha256": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
      "certificates": ["spiffe://cluster.example/ns/shop/sa/backend"]
    }]}

roles: those of `service_kit/identity.py`. projects: ids, or `["*"]` for all. tokens_sha256: 64 lower-case hex digits
each; several let a token be rotated. certificates: a SPIFFE id, or another URI, DNS name or e-mail address among the
certificate's subject alternative names, exactly as it is there. Tokens must be long and random, because their hash is a
plain one: `openssl rand -hex 32` makes one, `printf %s "$TOKEN" | sha256sum` its hash. Who reads it gets no token.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from service_kit.identity import Grant, Identity
from service_kit.rereading import FileUnusable, read_bytes

_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]


class _Entry(Grant):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    tokens_sha256: tuple[_Digest, ...] = ()
    certificates: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    identities: tuple[_Entry, ...]

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for what, found in (
            ("name", [entry.name for entry in self.identities]),
            ("tokens_sha256", [digest for entry in self.identities for digest in entry.tokens_sha256]),
            ("certificates", [name for entry in self.identities for name in entry.certificates]),
        ):
            if any(count > 1 for count in Counter(found).values()):
                raise ValueError(f"a {what} stands there twice; it must mean one identity")
        return self


class Identities:
    """The identities of one state of the file."""

    def __init__(self, entries: Collection[_Entry]) -> None:
        self._by_digest = [
            (digest.encode(), entry.identity(entry.name)) for entry in entries for digest in entry.tokens_sha256
        ]
        self._by_certificate = {name: entry.identity(entry.name) for entry in entries for name in entry.certificates}

    def of_token(self, token: str) -> Identity | None:
        """Whose token this is. Takes as long whichever it is, and if it is none."""
        digest = hashlib.sha256(token.encode()).hexdigest().encode()
        found = None
        for known, identity in self._by_digest:
            if hmac.compare_digest(known, digest):
                found = identity
        return found

    def of_certificate(self, names: Collection[str]) -> Identity | None:
        """Whose certificate has these names; None where that is nobody, or more than one identity."""
        found = {self._by_certificate[name] for name in names if name in self._by_certificate}
        return found.pop() if len(found) == 1 else None


def read_identities(path: Path) -> Identities:
    """Read the file. Raises FileUnusable with everything that is wrong, and nothing of what stands there."""
    try:
        return Identities(_File.model_validate_json(read_bytes(path)).identities)
    except ValidationError as error:
        complaints = [
            f"{'.'.join(map(str, detail['loc'])) or 'the file'}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise FileUnusable(f"{path}: {'; '.join(complaints)}") from None
