"""Which version an adapter's name means now, without asking the bucket each time.

Its one rule: no answer is older than four seconds, counted from the moment the bucket was asked. A name whose answer is
older than two is read again in the background when it is asked for, so one in steady use never waits for the store.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass

from service_kit.adapter_manifest import (
    AdapterManifest,
    is_abandoned,
    read_latest,
    read_manifest,
    read_reservation,
    versions,
)
from service_kit.document import UnreadableDocument
from service_kit.errors import DataLost, PreconditionUnmet, ResourceMissing
from service_kit.names import AdapterName, AdapterVersionName
from service_kit.store import ObjectStore

# A deleted adapter must not be served after 5 s; a request takes some of that from being resolved to being accepted.
_READ_AGAIN_AFTER_S = 2.0
_MAX_AGE_S = 4.0
_MAX_ANSWERS = 1024
# Apart from those that fetch files, so that slow files do not make answers old.
_THREADS = 8

Name = AdapterName | AdapterVersionName
"""A version, or an adapter, whose latest version is meant."""


@dataclass(frozen=True)
class _Answer:
    manifest: AdapterManifest | None
    """None: no such version is published."""
    asked_s: float


class Manifests:
    """What the bucket says of adapters. Safe for use by several threads; nothing is read before it is asked for.

    A version is read with one GET, the latest with a LIST of that adapter's versions and a GET: what else the bucket
    holds costs nothing.
    """

    def __init__(self, store: ObjectStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="manifests")
        self._lock = threading.Lock()
        self._answers: OrderedDict[Name, _Answer] = OrderedDict()
        self._reading: dict[Name, Future[AdapterManifest]] = {}

    def known(self, name: Name) -> AdapterManifest | None:
        """The manifest if it is known and recent enough. Does not wait."""
        answer, age_s = self._look_up(name)
        return answer.manifest if answer is not None and age_s < _MAX_AGE_S else None

    def read(self, name: Name) -> "Future[AdapterManifest]":
        """Read the manifest; who asks while it is being read gets the same answer. Do not cancel it.

        It raises ResourceMissing, PreconditionUnmet, DataLost or what the store raises.
        """
        with self._lock:
            if name not in self._reading:
                self._reading[name] = self._threads.submit(copy_context().run, self._read, name)
            return self._reading[name]

    def is_deleted(self, name: AdapterVersionName) -> bool:
        """Whether a version that was published is known to be so no longer. Does not wait.

        Asked every second it says so within five seconds; a store that does not answer says nothing about it.
        """
        answer, _ = self._look_up(name)
        if answer is None:
            self.read(name)
            return False
        return answer.manifest is None

    def close(self) -> None:
        """Wait for what is being read and stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _look_up(self, name: Name) -> tuple[_Answer | None, float]:
        """What was answered last and its age in seconds; has it read again where that is too old."""
        with self._lock:
            answer = self._answers.get(name)
            if answer is not None:
                self._answers.move_to_end(name)
        age_s = self._clock() - answer.asked_s if answer is not None else 0.0
        if answer is not None and age_s >= _READ_AGAIN_AFTER_S:
            self.read(name)
        return answer, age_s

    def _read(self, name: Name) -> AdapterManifest:
        asked_s = self._clock()
        try:
            manifest = (
                read_latest(self._store, name) if isinstance(name, AdapterName) else read_manifest(self._store, name)
            )
            with self._lock:
                self._remember(name, _Answer(manifest, asked_s))
                if manifest is not None:
                    self._remember(manifest.name, _Answer(manifest, asked_s))
            if manifest is None:
                raise self._why_missing(name)
            return manifest
        except UnreadableDocument as error:
            raise DataLost(f"the manifest of adapter {name} cannot be read; train it again") from error
        finally:
            with self._lock:
                del self._reading[name]

    def _remember(self, name: Name, answer: _Answer) -> None:
        before = self._answers.get(name)
        # A version is read by its own name and as the latest, at the same time too: the later question counts.
        if before is None or before.asked_s <= answer.asked_s:
            self._answers[name] = answer
            self._answers.move_to_end(name)
        while len(self._answers) > _MAX_ANSWERS:
            self._answers.popitem(last=False)

    def _why_missing(self, name: Name) -> ResourceMissing | PreconditionUnmet:
        """A version reserved by a training will come, so saying only that it is missing would mislead."""
        version = name
        if isinstance(version, AdapterName):
            reserved = versions(self._store, version)
            if not reserved:
                return ResourceMissing("Adapter", str(name))
            version = version.version(reserved[-1])
        reservation = read_reservation(self._store, version)
        if reservation is None or not reservation.training or is_abandoned(self._store, version):
            return ResourceMissing("Adapter", str(name))
        return PreconditionUnmet(
            "ADAPTER_STILL_TRAINING",
            reservation.training,
            f"adapter {version} is not published yet; watch its training {reservation.training}",
        )
