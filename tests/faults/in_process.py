"""A training on a real store behind a proxy, without processes: two workers' writes, in any order, in milliseconds."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from service_kit import schema
from service_kit.names import DatasetName
from service_kit.store import ObjectStore
from tests.faults.happenings import held
from tests.faults.store_proxy import Rule, StoreProxy
from tests.integration.trainer_calls import unique
from tests.real_store import RealStore, connect
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.ending import end_training
from trainer_service.lifecycle import State
from trainer_service.training_record import TrainingRecord
from trainer_service.training_request import TrainingRequest
from trainer_service.training_store import TrainingStore
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.publishing import Outcome, publish

_WITHIN_S = 60.0


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


@dataclass
class Writers:
    """`near` reaches the store straight, `far` through the proxy, where its requests can be disturbed."""

    proxy: StoreProxy
    near: ObjectStore
    far: ObjectStore
    dataset: DatasetName

    @property
    def records(self) -> TrainingStore:
        """Through `near`."""
        return TrainingStore(self.near)

    def trainer(self, store: ObjectStore) -> Trainer:
        """A service on one of the stores, at the present time."""
        trainer = Trainer(store)  # type: ignore[arg-type]
        trainer.clock.time = now()
        return trainer

    def request(self) -> TrainingRequest:
        """A request that no other equals."""
        return request(dataset=str(self.dataset), adapter_id=unique("adapter"), request_id=str(uuid.uuid4()))

    def taken(self, holder: str) -> TrainingRecord:
        """A new training, taken by a worker."""
        created = self.trainer(self.near).trainings.create(self.request()).record
        return self.take(created, holder)

    def take(self, record: TrainingRecord, holder: str) -> TrainingRecord:
        """The training, taken by a worker, whoever has it."""
        return self.records.change(record.name, lambda found: found.taken(holder, now()))

    def keeper(self, store: ObjectStore, record: TrainingRecord) -> LeaseKeeper:
        """The lease of a worker on one of the stores; its heartbeat does not run by itself."""
        return LeaseKeeper(TrainingStore(store), record, Interrupts(), now)

    def publish(self, store: ObjectStore, record: TrainingRecord, body: bytes) -> None:
        """Publish these bytes as the training's adapter."""
        outcome = Outcome(body, 1, None, None, ())
        publish(store, record, self.records.dataset(record.name), "digest", "StableDiffusionPipeline", outcome, now)

    def succeed(self, record: TrainingRecord) -> None:
        """Publish an adapter as the training's holder, and end it."""
        self.publish(self.near, record, f"by {record.holder}".encode())
        for state in (State.TRAINING, State.PUBLISHING):
            record = self.records.change(record.name, lambda found, state=state: found.moved(state))
        end_training(self.near, record, State.SUCCEEDED, None, now)

    @contextmanager
    def under_way(self, key: str, write: threading.Thread) -> Iterator[None]:
        """Start a thread of `far`'s; its PUT of a key is under way inside the block, and has arrived after it."""
        until = threading.Event()
        with self.proxy.when(Rule("PUT", key, held(until))) as rule:
            write.start()
            assert rule.happened.wait(_WITHIN_S)
            try:
                yield
            finally:
                until.set()
                write.join()


@contextmanager
def writers(store: RealStore, proxy: StoreProxy) -> Iterator[Writers]:
    """A dataset, and no queue entry left for services that come later."""
    near = store.store
    dataset = Trainer(near).dataset(unique("dataset"), count=3)  # type: ignore[arg-type]
    earlier = set(near.keys(schema.queue_prefix()))
    yield Writers(proxy, near, connect(proxy.endpoint), dataset)
    for key in set(near.keys(schema.queue_prefix())) - earlier:
        near.delete(key)
