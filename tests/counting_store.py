"""A store in front of another that knows what it was asked, and answers when it may."""

import threading
import time
from collections.abc import Iterator
from typing import Any

from service_kit.memory_store import MemoryStore
from service_kit.store import ObjectStore, StoredObject, StoreUnavailable

_PATIENCE_S = 30.0


class CountingStore:
    """See ObjectStore. Reads can be made slow, one by one or all, or fail."""

    def __init__(self, behind: ObjectStore | None = None) -> None:
        self._behind: Any = behind or MemoryStore()
        self.calls: list[tuple[str, str]] = []
        """Reads, as (operation, key)."""
        self.listed = 0
        """Entries that listings gave."""
        self.latency_s = 0.0
        """Of each read."""
        self.held: dict[str, threading.Event] = {}
        """Reads of these keys wait for their events."""
        self.away = False

    def get(self, key: str) -> StoredObject:
        self._ask("get", key)
        return self._behind.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self._ask("get_range", key)
        return self._behind.get_range(key, offset, length)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        self._ask("keys", prefix)
        return self._counted(self._behind.keys(prefix, after))

    def folders(self, prefix: str, after: str = "") -> Iterator[str]:
        self._ask("folders", prefix)
        return self._counted(self._behind.folders(prefix, after))

    def put(self, key: str, body: bytes) -> None:
        self._behind.put(key, body)

    def create(self, key: str, body: bytes) -> str:
        return self._behind.create(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        return self._behind.replace(key, body, etag)

    def delete(self, key: str) -> None:
        self._behind.delete(key)

    def _ask(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        if key in self.held:
            assert self.held[key].wait(_PATIENCE_S)
        if self.away:
            raise StoreUnavailable(key)
        if self.latency_s:
            # The delay of a network is what is simulated here.
            time.sleep(self.latency_s)

    def _counted(self, entries: Iterator[str]) -> Iterator[str]:
        for entry in entries:
            self.listed += 1
            yield entry
