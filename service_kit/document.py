"""Records and manifests: JSON objects with a `schema_version`.

Readers ignore fields they do not know and refuse a newer major version.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

SCHEMA_VERSION = 1


class UnreadableDocument(Exception):
    """A record or manifest that is not what this release writes or an older one wrote."""


class Document(BaseModel):
    """Base of everything stored as JSON. Immutable; change it with `model_copy(update=…)`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    schema_version: int = SCHEMA_VERSION

    @field_validator("schema_version")
    @classmethod
    def _not_newer(cls, version: int) -> int:
        if version > SCHEMA_VERSION:
            raise ValueError(f"written by a newer release (schema {version}, known is {SCHEMA_VERSION})")
        return version

    def to_json(self) -> bytes:
        """The bytes to store."""
        return self.model_dump_json(indent=1).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Read stored bytes. Raises UnreadableDocument."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise UnreadableDocument(f"{cls.__name__}: {error}") from error
