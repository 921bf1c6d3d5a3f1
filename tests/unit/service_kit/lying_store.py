"""A store in memory that breaks one promise at a time, as real ones do: conditions, reads, lists, ranges, deletions.

Its one rule: without a lie it is the store that passes the contract.
"""

import threading
from collections.abc import Iterator

from service_kit.memory_store import MemoryStore
from service_kit.store import ObjectChanged, ObjectExists, StoredObject

# Those who race look before either writes.
_LOOK_TOGETHER_S = 1.0
_PAGE = 1_000
_PART_BYTES = 5 * 1024 * 1024


class LyingStore(MemoryStore):
    """See ObjectStore. lie: which promise is broken; empty for none."""

    def __init__(self, lie: str = "") -> None:
        super().__init__()
        self.lie = lie
        self._before: dict[str, StoredObject] = {}
        self._newest = ""
        self._deleted = ""
        self._looking = threading.Barrier(2)

    def get(self, key: str) -> StoredObject:
        if self.lie == "reads are stale" and key in self._before:
            return self._before[key]
        if self.lie == "reads find the deleted" and key == self._deleted:
            return self._before[key]
        stored = super().get(key)
        if self.lie == "reads give other ETags" and key.endswith("/etag"):
            return StoredObject(stored.body, f"{stored.etag}-1")
        return stored

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        return super().get_range(key, 0 if self.lie == "ranges begin at 0" else offset, length)

    def put(self, key: str, body: bytes) -> None:
        if key in self._objects and self.lie == "reads are stale":
            self._before[key] = self._objects[key]
        super().put(key, body[:_PART_BYTES] if self.lie == "only the first part is kept" else body)

    def create(self, key: str, body: bytes) -> str:
        self._newest = key
        if self.lie == "create overwrites":
            return self._overwrite(key, body)
        if self.lie == "create is not atomic" and "/creators/" in key:
            return self._look_then_write(key, body, None, ObjectExists(key))
        return super().create(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        # A counter in memory may be counted up by one thread after the other, and lose nothing by chance.
        if self.lie == "replace overwrites" and key in self._objects and not key.endswith("/counter"):
            return self._overwrite(key, body)
        if self.lie == "replace creates" and key not in self._objects:
            return super().create(key, body)
        if self.lie == "replace is not atomic" and key.endswith("/replacers"):
            return self._look_then_write(key, body, etag, ObjectChanged(key))
        if self.lie == "replace forgets" and key.endswith("/counter") and body.startswith(b"3 "):
            return super().get(key).etag
        return super().replace(key, body, etag)

    def delete(self, key: str) -> None:
        if self.lie == "delete needs an object":
            super().get(key)
        if self.lie == "reads find the deleted" and key in self._objects:
            self._before[key] = self._objects[key]
        self._deleted = key
        super().delete(key)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        found = list(super().keys(prefix, "" if self.lie == "lists begin at the first" else after))
        if self.lie == "lists miss the newest":
            found = [key for key in found if key != self._newest]
        if self.lie == "lists show the deleted" and self._deleted.startswith(prefix):
            found = sorted({*found, self._deleted})
        if self.lie == "lists are in no order":
            found.reverse()
        if self.lie == "lists end with a page":
            found = found[:_PAGE]
        return iter(found)

    def _overwrite(self, key: str, body: bytes) -> str:
        with self._lock:
            return self._write(key, body)

    def _look_then_write(self, key: str, body: bytes, etag: str | None, lost: Exception) -> str:
        seen = self._objects.get(key)
        if (seen.etag if seen else None) != etag:
            raise lost
        try:
            self._looking.wait(_LOOK_TOGETHER_S)
        except threading.BrokenBarrierError:
            # Nobody else is left in this race.
            self._looking.reset()
        return self._overwrite(key, body)


class UnansweringStore(MemoryStore):
    """See ObjectStore. `create` raises `error` for the first `times` creates of a key that contains `where`."""

    def __init__(self, where: str, error: BaseException, times: int) -> None:
        super().__init__()
        self._where = where
        self._error = error
        self._times = times
        self._counting = threading.Lock()

    def create(self, key: str, body: bytes) -> str:
        with self._counting:
            strikes = self._where in key and self._times > 0
            self._times -= strikes
        if strikes:
            raise self._error
        return super().create(key, body)
