"""An in-memory store that knows what it was asked, and answers when it may."""

import threading
import time
from collections.abc import Iterator

from service_kit.memory_store import MemoryStore
from service_kit.store import StoredObject, StoreUnavailable


class CountingStore(MemoryStore):
    """Reads wait for `open`, take `latency_s`, and are listed in `calls` as (operation, key)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.listed = 0
        """Entries that listings gave."""
        self.latency_s = 0.0
        self.slow_keys: dict[str, threading.Event] = {}
        """A read of one of these keys waits for its event."""
        self.away = False

    def get(self, key: str) -> StoredObject:
        self._asked("get", key)
        return super().get(key)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        self._asked("keys", prefix)
        for key in super().keys(prefix, after):
            self.listed += 1
            yield key

    def folders(self, prefix: str, after: str = "") -> Iterator[str]:
        self._asked("folders", prefix)
        folders = list(super().folders(prefix, after))
        # The fake makes folders of keys; a bucket lists folders as such.
        self.listed += len(folders)
        return iter(folders)

    def _asked(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        if self.away:
            raise StoreUnavailable(key)
        if key in self.slow_keys:
            self.slow_keys[key].wait(30)
        if self.latency_s:
            # What is simulated is a network's delay.
            time.sleep(self.latency_s)
