"""An object store in memory, for tests and benches: the fake that passes the same contract suite as the real one."""

import hashlib
import threading
from collections.abc import Iterator

from service_kit.store import ObjectChanged, ObjectExists, ObjectMissing, StoredObject


class MemoryStore:
    """See ObjectStore. Safe for use by several threads."""

    def __init__(self) -> None:
        self._objects: dict[str, StoredObject] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> StoredObject:
        with self._lock:
            if key not in self._objects:
                raise ObjectMissing(key)
            return self._objects[key]

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return self.get(key).body[offset : offset + length]

    def put(self, key: str, body: bytes) -> None:
        with self._lock:
            self._write(key, body)

    def create(self, key: str, body: bytes) -> str:
        with self._lock:
            stored = self._objects.get(key)
            if stored is not None and stored.body != body:
                raise ObjectExists(key)
            return self._write(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        with self._lock:
            stored = self._objects.get(key)
            if stored is None or (stored.etag != etag and stored.body != body):
                raise ObjectChanged(key)
            return self._write(key, body)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        with self._lock:
            found = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        return iter(found)

    def folders(self, prefix: str, after: str = "") -> Iterator[str]:
        folders = {
            prefix + key.removeprefix(prefix).partition("/")[0] + "/"
            for key in self.keys(prefix)
            if "/" in key.removeprefix(prefix)
        }
        return iter(sorted(folder for folder in folders if folder > after))

    def _write(self, key: str, body: bytes) -> str:
        # As S3 does: the ETag follows the content, so equal bodies have equal ETags.
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self._objects[key] = StoredObject(body, etag)
        return etag
