"""The queue in the bucket: which trainings are free, and freeing those that nobody carries out.

Its one rule: a training is free when nobody holds it, when its holder is known to be dead, or when its record stood
still for 30 s on our own clock. Freed, it is QUEUED again, whether or not anybody is there to take it.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Container, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from service_kit import schema
from service_kit.document import UnreadableDocument
from service_kit.errors import ResourceMissing
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectStore
from trainer_service.handing_back import say_handed_back
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_record import LeaseWatch, TrainingRecord
from trainer_service.training_store import TrainingStore

_logger = logging.getLogger(__name__)

# A queue entry without a record is a CreateTraining that died half way; nobody repeats it after this long.
_FORGOTTEN_MS = 24 * 3600 * 1000


class Free(NamedTuple):
    """A training that nobody has: its record and the ETag at which that is so, and when it was queued."""

    record: TrainingRecord
    etag: str
    created_ms: int


class TrainingQueue:
    """The queue as one service sees it, which has to look every few seconds to notice what stands still."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime], metrics: TrainerMetrics) -> None:
        self._store = store
        self._records = TrainingStore(store)
        self._now = now
        self._metrics = metrics
        self._watch = LeaseWatch()
        self._unreadable: set[TrainingName] = set()

    def free(self, busy: Container[TrainingName] = (), dead_holders: Container[str] = ()) -> Iterator[Free]:
        """Trainings that are free, oldest first; those that can be freed are. Blocking; for one thread at a time.

        busy: not looked at. dead_holders: names in leases of workers that carry nothing out any more, but for the busy.
        Raises StoreError.
        """
        for key in self._store.keys(schema.queue_prefix()):
            name, created_ms = schema.training_of_queue_entry(key), schema.created_ms_of_queue_entry(key)
            if name in busy:
                continue
            try:
                record, etag = self._records.read(name)
            except ResourceMissing:
                self._drop_if_forgotten(key)
                continue
            except UnreadableDocument as error:
                self._pass_over(name, error)
                continue
            if record.state.is_final:
                self._store.delete(key)
                self._watch.forget(name)
            elif not record.holder:
                yield Free(record, etag, created_ms)
            elif record.holder in dead_holders or self._watch.is_stale(name, etag, time.monotonic()):
                self._watch.forget(name)
                with contextlib.suppress(ObjectChanged):
                    yield Free(*self._take_from_holder(record, etag), created_ms)

    def note_look(self, free: Sequence[Free]) -> None:
        """Note for the metrics what a look found."""
        oldest_ms = min((found.created_ms for found in free), default=None)
        waited_s = 0.0 if oldest_ms is None else self._now().timestamp() - oldest_ms / 1000
        self._metrics.looked(len(free), max(0.0, waited_s))

    def _take_from_holder(self, record: TrainingRecord, etag: str) -> tuple[TrainingRecord, str]:
        """Free a training whose holder does not carry it out; its record and new ETag. Raises ObjectChanged."""
        free = record.abandoned(record.holder)
        new_etag = self._records.replace(free, etag)
        self._metrics.freed.inc()
        _logger.warning("%s: %s does not carry it out; it waits again", record.name, record.holder)
        if free.state is not record.state:
            say_handed_back(self._store, free, self._now)
        return free, new_etag

    def _pass_over(self, name: TrainingName, error: UnreadableDocument) -> None:
        """Leave a training whose record is damaged, or of a newer release, where it is: others wait behind it."""
        if name not in self._unreadable:
            self._unreadable.add(name)
            _logger.error("%s cannot be read and waits: %s", name, error)

    def _drop_if_forgotten(self, key: str) -> None:
        age_ms = self._now().timestamp() * 1000 - schema.created_ms_of_queue_entry(key)
        if age_ms > _FORGOTTEN_MS:
            self._store.delete(key)
