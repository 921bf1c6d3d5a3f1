"""The object store port: the few operations that everything durable here is made of.

Its one rule: no silent overwrite. `create` and `replace` are atomic; `put` is for keys that name their content.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """Anything the store could not do."""


class ObjectMissing(StoreError):
    """No object has this key."""


class ObjectExists(StoreError):
    """`create` found another object under the key."""


class ObjectChanged(StoreError):
    """`replace` found another ETag, or no object, under the key."""


class StoreUnavailable(StoreError):
    """The store did not answer, or answered that it cannot now. Trying again may help."""


class StoreForbidden(StoreError):
    """The store refuses our credentials, or the bucket does not exist. Trying again does not help."""


@dataclass(frozen=True)
class StoredObject:
    """An object's bytes and the ETag that `replace` compares."""

    body: bytes
    etag: str


class ObjectStore(Protocol):
    """An S3 bucket with atomic conditional writes. All calls block and may raise StoreUnavailable or StoreForbidden."""

    def get(self, key: str) -> StoredObject:
        """Return a whole object. Raises ObjectMissing."""
        ...

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset`; empty at the end. Raises ObjectMissing."""
        ...

    def put(self, key: str, body: bytes) -> None:
        """Write an object whose key names its content, so that a repeat writes the same bytes again."""
        ...

    def create(self, key: str, body: bytes) -> str:
        """Write an object that does not exist yet and return its ETag. Raises ObjectExists.

        A lost answer is mended by reading back: equal bytes that are there already count as our own. Bodies that race
        must therefore differ.
        """
        ...

    def replace(self, key: str, body: bytes, etag: str) -> str:
        """Overwrite an object that still has `etag` and return its new ETag. Raises ObjectChanged.

        A lost answer is mended as in `create`.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        ...

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        """All keys with the prefix that sort after `after`, in order."""
        ...

    def folders(self, prefix: str, after: str = "") -> Iterator[str]:
        """The distinct `prefix…/` one level below the prefix that sort after `after`, in order."""
        ...
