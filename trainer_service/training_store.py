"""Training records in the bucket: read, create, and change by compare-and-swap."""

from collections.abc import Callable

from service_kit import schema
from service_kit.errors import ResourceMissing, WriteConflict
from service_kit.names import TrainingName
from service_kit.store import ObjectChanged, ObjectMissing, ObjectStore
from trainer_service.training_record import TrainingDataset, TrainingRecord

_ATTEMPTS = 16


class TrainingStore:
    """The training records of a bucket. Blocking; safe for several threads."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read(self, name: TrainingName) -> tuple[TrainingRecord, str]:
        """A record and its ETag. Raises ResourceMissing, also for a deleted one."""
        found = self._read(name)
        if found is None or found[0].deleted:
            raise ResourceMissing("Training", str(name))
        return found

    def create(self, record: TrainingRecord) -> None:
        """Store a new record. Raises ObjectExists."""
        self._store.create(schema.training_record(record.name), record.to_json())

    def replace(self, record: TrainingRecord, etag: str) -> str:
        """Store a record over the one with this ETag. Raises ObjectChanged."""
        return self._store.replace(schema.training_record(record.name), record.to_json(), etag)

    def change(self, name: TrainingName, change: Callable[[TrainingRecord], TrainingRecord]) -> TrainingRecord:
        """Apply `change` to the record as it is now, again and again until nobody was faster.

        Raises ResourceMissing, WriteConflict, and whatever `change` raises.
        """
        for _ in range(_ATTEMPTS):
            record, etag = self.read(name)
            changed = change(record)
            if changed == record:
                return record
            try:
                self.replace(changed, etag)
                return changed
            except ObjectChanged:
                continue
        raise WriteConflict(f"other writers of {name} kept winning")

    def hide(self, name: TrainingName) -> TrainingRecord | None:
        """Mark a record as deleted, so that it counts as missing and its holder stops; None where there is none."""
        for _ in range(_ATTEMPTS):
            found = self._read(name)
            if found is None or found[0].deleted:
                return found and found[0]
            hidden = found[0].model_copy(update={"deleted": True})
            try:
                self.replace(hidden, found[1])
                return hidden
            except ObjectChanged:
                continue
        raise WriteConflict(f"other writers of {name} kept winning")

    def _read(self, name: TrainingName) -> tuple[TrainingRecord, str] | None:
        try:
            stored = self._store.get(schema.training_record(name))
        except ObjectMissing:
            return None
        return TrainingRecord.from_json(stored.body), stored.etag

    def dataset(self, name: TrainingName) -> TrainingDataset:
        """What the training learns from."""
        return TrainingDataset.from_json(self._store.get(schema.training_dataset(name)).body)
