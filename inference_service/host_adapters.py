"""Adapters in host memory, parsed and checked: bounded by bytes, in front of the disk and the bucket.

Its one rule: an adapter is loaded once, however many wait for it, and a file that proved bad is refused without being
fetched again for a minute.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import NamedTuple
from weakref import WeakValueDictionary

from base_models.adapters.adapter_file import AdapterInvalid
from inference_service.adapter_cache import AdapterCache
from inference_service.engine import HostAdapter
from service_kit.errors import DataLost, TryLater

# Long enough that callers who repeat a request cost nothing, short enough that a restored file is served soon.
_REFUSE_FOR_S = 60.0
_MAX_REFUSED = 1024
# At most this share of the bound is pinned, so that there is always room for the others.
_PINNED_SHARE = 0.5
_PIN_RETRY_S = 60.0
Refusal = DataLost | AdapterInvalid
# As many files are on their way at once; the next waits for one of them.
_THREADS = 16


class HostKey(NamedTuple):
    """Which adapter: equal keys mean equal tensors, checked against the same base model."""

    base_model: str
    digest: str
    """SHA-256 (hex) of its file."""


class HostAdapters:
    """Safe for use by several threads. Who got an adapter keeps it, whether or not it is still held here."""

    def __init__(self, cache: AdapterCache, max_bytes: int, clock: Callable[[], float]) -> None:
        self._cache = cache
        self.max_bytes = max_bytes
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="adapters")
        self._lock = threading.Lock()
        # The longest unused first.
        self._held: OrderedDict[HostKey, HostAdapter] = OrderedDict()
        self._held_bytes = 0
        # Among those held.
        self._pinned: set[HostKey] = set()
        self._pinned_bytes = 0
        # What a request or a slot of the engine still has need not be loaded again.
        self._alive: WeakValueDictionary[HostKey, HostAdapter] = WeakValueDictionary()
        self._loading: dict[HostKey, Future[HostAdapter]] = {}
        self._refused: OrderedDict[HostKey, tuple[Refusal, float]] = OrderedDict()

    def find(self, key: HostKey) -> HostAdapter | None:
        """The adapter if it is in memory: no disk, no hashing, no waiting."""
        with self._lock:
            return self._find(key)

    def load(self, key: HostKey, blob: str, parse: Callable[[bytes], HostAdapter]) -> "Future[HostAdapter]":
        """Bring an adapter into memory from the disk or from the object `blob`; cancelling the future does nothing.

        It raises DataLost, or AdapterInvalid where `parse` does; at once where the file proved bad within the last
        minute. What the store raises is not remembered.
        """
        future: Future[HostAdapter] = Future()
        # Several callers share it: none may cancel it for the others.
        future.set_running_or_notify_cancel()
        with self._lock:
            if key in self._loading:
                return self._loading[key]
            content, refusal = self._find(key), self._refusal(key)
            if content is None and refusal is None:
                # Within the call that asked first, for its spans and log lines.
                self._threads.submit(copy_context().run, self._load, key, blob, parse, future)
                self._loading[key] = future
        if content is not None:
            future.set_result(content)
        elif refusal is not None:
            future.set_exception(refusal)
        return future

    @property
    def held(self) -> tuple[int, int]:
        """How many adapters are held, and their bytes."""
        with self._lock:
            return len(self._held), self._held_bytes

    @property
    def pinned_bytes(self) -> int:
        """Bytes of those that are pinned."""
        return self._pinned_bytes

    def pin(self, key: HostKey, content: HostAdapter) -> None:
        """Hold an adapter until it is unpinned or dropped. Raises TryLater where too much is pinned already."""
        with self._lock:
            if key in self._pinned:
                return
            limit_bytes = int(self.max_bytes * _PINNED_SHARE)
            if self._pinned_bytes + content.size_bytes > limit_bytes:
                raise TryLater(
                    "PINS_FULL",
                    f"{self._pinned_bytes} bytes of adapters are pinned in host memory; {content.size_bytes} more "
                    f"would exceed the limit of {limit_bytes}; preload one of the others without `pinned` first",
                    _PIN_RETRY_S,
                )
            self._hold(key, content)
            self._pinned.add(key)
            self._pinned_bytes += content.size_bytes

    def unpin(self, key: HostKey) -> None:
        """Let an adapter go when its turn comes; one that is not pinned is no error."""
        with self._lock:
            self._unpin(key)

    def is_pinned(self, key: HostKey) -> bool:
        """Whether it is held whatever comes."""
        with self._lock:
            return key in self._pinned

    def holds(self, key: HostKey) -> bool:
        """Whether it is held here. Is no use of it."""
        with self._lock:
            return key in self._held

    def drop(self, key: HostKey) -> None:
        """Stop holding an adapter, pinned or not, and delete its file from the disk; does not wait for that."""
        with self._lock:
            self._unpin(key)
            if key in self._held:
                self._held_bytes -= self._held.pop(key).size_bytes
        self._threads.submit(self._cache.drop, key.digest)

    def close(self) -> None:
        """Wait for what is being fetched and stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _load(
        self, key: HostKey, blob: str, parse: Callable[[bytes], HostAdapter], future: "Future[HostAdapter]"
    ) -> None:
        try:
            body, content = self._cache.read(blob, key.digest, parse)
        except (DataLost, AdapterInvalid) as error:
            with self._lock:
                del self._loading[key]
                self._refuse(key, error)
            future.set_exception(_anew(error))
            return
        except Exception as error:
            with self._lock:
                del self._loading[key]
            future.set_exception(error)
            return
        with self._lock:
            del self._loading[key]
            self._alive[key] = content
            self._hold(key, content)
        future.set_result(content)
        # After the answer: nobody waits for the disk.
        self._cache.keep(key.digest, body)

    def _find(self, key: HostKey) -> HostAdapter | None:
        content = self._held.get(key) or self._alive.get(key)
        if content is not None:
            self._hold(key, content)
        return content

    def _hold(self, key: HostKey, content: HostAdapter) -> None:
        """Hold as the most recently used; the longest unused make room. What cannot fit is not held."""
        if key not in self._held:
            if self._pinned_bytes + content.size_bytes > self.max_bytes:
                return
            self._held[key] = content
            self._held_bytes += content.size_bytes
        self._held.move_to_end(key)
        while self._held_bytes > self.max_bytes:
            oldest = next(held for held in self._held if held not in self._pinned)
            self._held_bytes -= self._held.pop(oldest).size_bytes

    def _unpin(self, key: HostKey) -> None:
        if key in self._pinned:
            self._pinned.remove(key)
            self._pinned_bytes -= self._held[key].size_bytes

    def _refuse(self, key: HostKey, error: Refusal) -> None:
        self._refused[key] = _anew(error), self._clock() + _REFUSE_FOR_S
        self._refused.move_to_end(key)
        while len(self._refused) > _MAX_REFUSED:
            self._refused.popitem(last=False)

    def _refusal(self, key: HostKey) -> Refusal | None:
        error, until_s = self._refused.get(key, (None, 0.0))
        if error is None or until_s <= self._clock():
            self._refused.pop(key, None)
            return None
        return _anew(error)


def _anew(error: Refusal) -> Refusal:
    """The same error without a stack: that would hold the whole file, and once it is raised again, all its callers."""
    return type(error)(*error.args)
