"""Deleting datasets, trainings and adapters: when a call returns, nothing of them can be read any more.

Its one rule: an entry for the sweep, then the tombstone, then what makes the thing exist. Whoever dies in between is
followed by the sweep (`remains.py`), which goes on where there is a tombstone.
"""

import contextlib
from collections.abc import Callable
from datetime import datetime

from service_kit import schema
from service_kit.adapter_manifest import versions
from service_kit.errors import PreconditionUnmet, ResourceMissing, Violations
from service_kit.names import AdapterName, AdapterVersionName, DatasetName, TrainingName
from service_kit.schema import Deletable
from service_kit.store import ObjectMissing, ObjectStore
from service_kit.tombstone import read_tombstone
from trainer_service.remains import bury, take_away, trainings_on
from trainer_service.request_id import check_request_id
from trainer_service.training_store import TrainingStore


class Deletion:
    """Deletes what a bucket holds. `now` gives the time in UTC. Blocking; called from worker threads of the service."""

    def __init__(self, store: ObjectStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def delete_dataset(self, name: DatasetName, request_id: str) -> list[TrainingName]:
        """Delete a dataset and what was made of it. Raises InvalidRequest, ResourceMissing.

        Returns the trainings on it: who runs one learns of it within a heartbeat, or sooner where somebody tells.
        """
        _check(request_id)
        trainings = [training for training, _ in trainings_on(self._store, name)]
        self._delete("Dataset", name, self._exists(schema.dataset_record(name)), request_id)
        return trainings

    def delete_training(self, name: TrainingName, request_id: str) -> None:
        """Delete a training that has ended. Raises InvalidRequest, ResourceMissing, PreconditionUnmet."""
        _check(request_id)
        exists = False
        with contextlib.suppress(ResourceMissing):
            state = TrainingStore(self._store).read(name)[0].state
            exists = True
            if not state.is_final:
                raise PreconditionUnmet(
                    "TRAINING_NOT_ENDED", str(name), f"{name} is {state.upper()}; cancel it and wait for its end first"
                )
        self._delete("Training", name, exists, request_id)

    def delete_adapter(self, name: AdapterName | AdapterVersionName, request_id: str) -> None:
        """Delete a published version, or all that are published. Raises InvalidRequest, ResourceMissing."""
        _check(request_id)
        if isinstance(name, AdapterVersionName):
            self._delete("Adapter", name, self._exists(schema.adapter_manifest(name)), request_id)
        else:
            self._delete_versions(name, request_id)

    def _delete_versions(self, name: AdapterName, request_id: str) -> None:
        # From the highest down, so that for a repeat what lies above its own was published after the first try.
        numbers = versions(self._store, name)[::-1]
        mine = [number for number in numbers if request_id and self._is_of(name.version(number), request_id)]
        deleted = bool(mine)
        for number in [number for number in numbers if number <= mine[0]] if mine else numbers:
            if self._exists(schema.adapter_manifest(name.version(number))):
                # Another call may have been faster with this version.
                with contextlib.suppress(ResourceMissing):
                    self._delete("Adapter", name.version(number), True, request_id)
                    deleted = True
        if not deleted:
            raise ResourceMissing("Adapter", str(name))

    def _delete(self, kind: str, name: Deletable, exists: bool, request_id: str) -> None:
        """Bury what exists, or go on with what this request buried before."""
        if exists:
            bury(self._store, name, request_id, self._now())
            # Whoever buried it first: nobody may read it after this.
            take_away(self._store, name)
        if not self._is_of(name, request_id) or not (exists or request_id):
            raise ResourceMissing(kind, str(name))
        if not exists:
            take_away(self._store, name)

    def _is_of(self, name: Deletable, request_id: str) -> bool:
        tombstone = read_tombstone(self._store, name)
        return tombstone is not None and tombstone.request_id == request_id

    def _exists(self, key: str) -> bool:
        """Whether there is an object, readable or not: what is damaged can be deleted too."""
        try:
            self._store.get_range(key, 0, 1)
        except ObjectMissing:
            return False
        return True


def _check(request_id: str) -> None:
    violations = Violations()
    check_request_id(request_id, violations)
    violations.raise_if_any()
