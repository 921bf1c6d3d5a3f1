"""What is left of deleted things, and its removal, now and once more when no worker can be writing any more.

Its one rule: whatever is done here may be done again, by anybody and at the same time. Only what stands in `deletions/`
is looked at; an entry goes when all else is gone.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import datetime

from service_kit import schema
from service_kit.document import UnreadableDocument
from service_kit.made_image import MadeImageEntry
from service_kit.names import AdapterVersionName, DatasetName, TrainingName
from service_kit.schema import Deletable
from service_kit.store import ObjectExists, ObjectMissing, ObjectStore, StoreError
from service_kit.tombstone import Tombstone, enter_deletion, is_deleted
from trainer_service.training_record import DatasetTraining
from trainer_service.training_store import TrainingStore

# A worker that lives stops at its next heartbeat, one that is cut off 15 s after its last; what both still write takes
# seconds. Who was frozen for longer enters the deletion again (`service_kit/tombstone.py`).
LAST_SWEEP_AFTER_S = 120.0
# An entry without a tombstone is a call that died before anything was deleted.
_FORGOTTEN_AFTER_S = 3600.0

_logger = logging.getLogger(__name__)


def bury(store: ObjectStore, name: Deletable, request_id: str, now: datetime) -> None:
    """Enter a deletion and set its tombstone; where there is one, that one stays."""
    enter_deletion(store, name)
    tombstone = Tombstone(name=str(name), deleted_at=now, request_id=request_id)
    with contextlib.suppress(ObjectExists):
        store.create(schema.tombstone(name), tombstone.to_json())


def take_away(store: ObjectStore, name: Deletable) -> None:
    """Make something buried unreadable; of a dataset, also the trainings on it and the adapters they made."""
    match name:
        case AdapterVersionName():
            store.delete(schema.adapter_manifest(name))
        case TrainingName():
            TrainingStore(store).hide(name)
        case DatasetName():
            store.delete(schema.dataset_record(name))
            for derived in (one for pair in trainings_on(store, name) for one in pair):
                if not is_deleted(store, derived):
                    bury(store, derived, "", _deleted_at(store, name))
                take_away(store, derived)


def trainings_on(store: ObjectStore, name: DatasetName) -> Iterator[tuple[TrainingName, AdapterVersionName]]:
    """The trainings that were created on a dataset, each with the adapter version that it reserved."""
    prefix = schema.dataset_trainings_prefix(name)
    for key in store.keys(prefix):
        training = key.removeprefix(prefix).removesuffix(".json")
        # Another sweep may have been faster.
        with contextlib.suppress(ObjectMissing):
            reserved = DatasetTraining.from_json(store.get(key).body).adapter
            yield TrainingName(name.project, training), AdapterVersionName.parse(reserved)


class Remains:
    """Sweeps what was deleted: every entry when it is first seen here, and for the last time two minutes later."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._first_seen_s: dict[str, float] = {}

    def sweep(self, now_s: float) -> Iterator[str]:
        """Remove what is due, yielding each key that was removed, so that the caller may stop in between.

        now_s: monotonic. Raises StoreUnavailable or StoreForbidden.
        """
        keys = list(self._store.keys(schema.deletions_prefix()))
        self._first_seen_s = {key: seen_s for key, seen_s in self._first_seen_s.items() if key in keys}
        for key in keys:
            try:
                yield from self._sweep_entry(key, now_s)
            except StoreError:
                raise
            except Exception:
                # It must not keep the others from being swept.
                _logger.exception("%s could not be swept and is tried again", key)

    def _sweep_entry(self, key: str, now_s: float) -> Iterator[str]:
        name, is_first = schema.deleted_of_entry(key), key not in self._first_seen_s
        age_s = now_s - self._first_seen_s.get(key, now_s)
        is_last = age_s >= LAST_SWEEP_AFTER_S
        if not is_deleted(self._store, name):
            self._first_seen_s.setdefault(key, now_s)
            if age_s >= _FORGOTTEN_AFTER_S:
                self._store.delete(key)
                yield key
        elif is_first or is_last:
            yield from _remove(self._store, name, is_last)
            # Only now, so that a sweep that failed is repeated.
            self._first_seen_s.setdefault(key, now_s)
            if is_last:
                self._store.delete(key)
                yield key


def _remove(store: ObjectStore, name: Deletable, is_last: bool) -> Iterator[str]:
    """Remove what lies in the folder of something buried. What leads to images that may still come stays till last."""
    take_away(store, name)
    kept = [schema.tombstone(name)]
    if isinstance(name, TrainingName):
        record = TrainingStore(store).hide(name)
        if record is not None and record.holder and not is_last:
            # Its worker may be reading and writing still; it stops at the next heartbeat.
            return
        if record is not None:
            store.delete(record.queue_key)
    else:
        yield from _remove_images(store, name)
        if not is_last:
            kept.append(schema.made_images_prefix(name))
    for key in store.keys(schema.folder(name)):
        if not key.startswith(tuple(kept)):
            store.delete(key)
            yield key


def _remove_images(store: ObjectStore, name: DatasetName | AdapterVersionName) -> Iterator[str]:
    """Remove the images in the bucket that were made with an adapter, or from a dataset's pictures."""
    for key in store.keys(schema.made_images_prefix(name)):
        try:
            image = MadeImageEntry.from_json(store.get(key).body).key
        except ObjectMissing:
            continue
        except UnreadableDocument as error:
            _logger.error("%s: an image may stay in the bucket: %s", key, error)
            continue
        if image:
            store.delete(image)
            yield image


def _deleted_at(store: ObjectStore, name: Deletable) -> datetime:
    return Tombstone.from_json(store.get(schema.tombstone(name)).body).deleted_at
