"""A store that is watched: how long each call took, what came of it, and a span for each within a call or a training.

Its one rule: it changes nothing, neither what is asked nor what is answered.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry.trace import Status, StatusCode

from service_kit.call_context import begin, span
from service_kit.store import (
    ObjectChanged,
    ObjectExists,
    ObjectMissing,
    ObjectStore,
    StoredObject,
    StoreForbidden,
    StoreUnavailable,
)

Noted = Callable[[str, str, float], None]
"""Told of each call: the operation, what came of it, and the seconds that it took."""

OUTCOMES: dict[type[BaseException], str] = {
    ObjectMissing: "missing",
    ObjectExists: "exists",
    ObjectChanged: "changed",
    StoreUnavailable: "unavailable",
    StoreForbidden: "forbidden",
}
"""What came of a call that raised; of any other, `ok`, or `error` where it raised what no store should."""


class ObservedStore:
    """See ObjectStore. As safe for several threads as the store behind it."""

    def __init__(self, behind: ObjectStore, noted: Noted) -> None:
        self._behind = behind
        self._noted = noted

    def get(self, key: str) -> StoredObject:
        with self._watched("get", key):
            return self._behind.get(key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        with self._watched("get_range", key):
            return self._behind.get_range(key, offset, length)

    def put(self, key: str, body: bytes) -> None:
        with self._watched("put", key):
            self._behind.put(key, body)

    def create(self, key: str, body: bytes) -> str:
        with self._watched("create", key):
            return self._behind.create(key, body)

    def replace(self, key: str, body: bytes, etag: str) -> str:
        with self._watched("replace", key):
            return self._behind.replace(key, body, etag)

    def delete(self, key: str) -> None:
        with self._watched("delete", key):
            self._behind.delete(key)

    def keys(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._listing("keys", prefix, lambda: self._behind.keys(prefix, after))

    def folders(self, prefix: str, after: str = "") -> Iterator[str]:
        return self._listing("folders", prefix, lambda: self._behind.folders(prefix, after))

    @contextmanager
    def _watched(self, operation: str, key: str) -> Iterator[None]:
        began_s, outcome = time.perf_counter(), "ok"
        try:
            with span(f"store {operation}", key=key):
                yield
        except BaseException as error:
            outcome = OUTCOMES.get(type(error), "error")
            raise
        finally:
            self._noted(operation, outcome, time.perf_counter() - began_s)

    def _listing(self, operation: str, prefix: str, ask: Callable[[], Iterator[str]]) -> Iterator[str]:
        """Only what the store took counts, not what the reader does between two entries."""
        opened, outcome, took_s = begin(f"store {operation}", key=prefix), "ok", 0.0
        try:
            entries = ask()
            while True:
                asked_s = time.perf_counter()
                entry = next(entries, None)
                took_s += time.perf_counter() - asked_s
                if entry is None:
                    return
                yield entry
        except GeneratorExit:
            # The reader has seen enough.
            raise
        except BaseException as error:
            outcome = OUTCOMES.get(type(error), "error")
            opened.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            opened.end()
            self._noted(operation, outcome, took_s)
