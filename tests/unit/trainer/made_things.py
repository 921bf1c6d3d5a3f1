"""Everything that comes of a dataset, as services and workers leave it in the bucket; and what a deletion leaves."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from inference_service.ledger import Ledger, Making
from inference_service.made_images import MadeImages
from service_kit import schema
from service_kit.made_image import MadeImageEntry
from service_kit.memory_store import MemoryStore
from service_kit.names import AdapterVersionName, DatasetName, ProjectName, TrainingName
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.deletion import Deletion
from trainer_service.ending import end_training
from trainer_service.lifecycle import State
from trainer_service.paging import PageRequest
from trainer_service.remains import LAST_SWEEP_AFTER_S, Remains
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.publishing import Outcome, publish

PROJECT = ProjectName("default")
DIGEST = "a" * 64
ALL = PageRequest(1000, "")


@dataclass(frozen=True)
class Made:
    """A dataset, the training that succeeded on it, and its adapter."""

    dataset: DatasetName
    training: TrainingName
    adapter: AdapterVersionName


def make(trainer: Trainer, dataset_id: str = "cat", adapter_id: str = "cat", new_version: bool = False) -> Made:
    """A dataset with a training that has ended, checkpoints, a sample, an adapter, an export, and images."""
    dataset = DatasetName("default", dataset_id)
    if dataset_id not in {record.dataset for record in trainer.datasets.page(PROJECT, ALL)[0]}:
        trainer.dataset(dataset_id, count=3)
    asked = request(dataset=str(dataset), adapter_id=adapter_id, new_version=new_version)
    record = taken(trainer, trainer.trainings.create(asked).record)
    store = trainer.store
    store.put(schema.checkpoint_file(record.name, 1, 10, "own.safetensors"), b"weights")
    store.put(schema.training_file(record.name, "samples/000010-0.png"), b"a picture")
    publish_adapter(store, record)
    store.put(schema.adapter_export(record.adapter, "kohya.safetensors"), b"{}")
    end_training(store, record, State.SUCCEEDED, None, trainer.clock)
    draw(store, record.adapter, dataset)
    return Made(dataset, record.name, record.adapter)


def taken(trainer: Trainer, record: TrainingRecord) -> TrainingRecord:
    """The record after a worker has carried the training as far as publishing."""

    def take(found: TrainingRecord) -> TrainingRecord:
        return found.taken("worker", trainer.clock()).moved(State.TRAINING).moved(State.PUBLISHING)

    return TrainingStore(trainer.store).change(record.name, take)


def publish_adapter(store: MemoryStore, record: TrainingRecord) -> None:
    """As the worker does."""
    dataset, outcome = TrainingStore(store).dataset(record.name), Outcome(b"weights", 10, None, None, ())
    publish(store, record, dataset, "b" * 64, "StableDiffusionPipeline", outcome, lambda: datetime.now(UTC))


def draw(store: MemoryStore, adapter: AdapterVersionName, dataset: DatasetName) -> str:
    """An image in the bucket, as inference leaves it; its key."""
    made, sources = MadeImages(store, "bucket"), (adapter, dataset)
    generation = hashlib.sha256(str(adapter).encode()).hexdigest()[:16]
    image = MadeImageEntry(digest=DIGEST, project="default", generation=generation, index=0, suffix="png")
    made.note(sources, image)
    made.keep(sources, image, b"an image")
    making = Making(generation=generation, adapters=(), base_model="toon-64", base_model_digest="b" * 64)
    Ledger(store, lambda: datetime.now(UTC)).note(PROJECT, DIGEST, making)
    return image.key


def deletion(trainer: Trainer) -> Deletion:
    return Deletion(trainer.store, trainer.clock)


def sweep(store: MemoryStore) -> None:
    """As a service does that starts now and runs for six minutes: what a last sweep finds gets a last sweep too."""
    remains = Remains(store)
    for round_ in range(4):
        list(remains.sweep(round_ * LAST_SWEEP_AFTER_S))


def left(store: MemoryStore) -> list[str]:
    """What is in the bucket but for tombstones and the ledger."""
    ledger = schema.image_ledger_entry(PROJECT, DIGEST)
    return [key for key in store.keys("") if not key.endswith("/tombstone.json") and key != ledger]
