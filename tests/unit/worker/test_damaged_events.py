"""A training whose events, or whose adapter's manifest, cannot be read: it ends, and holds up none behind it."""

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from base_models.families.stable_diffusion import StableDiffusion
from service_kit import schema
from service_kit.document import UnreadableDocument
from service_kit.names import TrainingName
from tests.unit.trainer.made_things import publish_adapter, taken
from tests.unit.trainer.trainer_fakes import Trainer, request
from tests.unit.worker.dying_worker import carry_out
from trainer_service.events import Ended
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_queue import TrainingQueue
from trainer_service.training_record import TrainingRecord
from trainer_service.worker.exit_code import ExitCode


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


def queued(trainer: Trainer) -> TrainingRecord:
    trainer.dataset(count=3)
    return trainer.trainings.create(request(adapter_id="cat")).record


def damage_events(trainer: Trainer, name: TrainingName) -> None:
    """As a store may that keeps an object whose bytes never came."""
    trainer.store.put(list(trainer.store.keys(schema.events_prefix(name)))[-1], b"")


def free(trainer: Trainer, *dead_holders: str) -> list[TrainingName]:
    queue = TrainingQueue(trainer.store, lambda: datetime.now(UTC), TrainerMetrics(CollectorRegistry()))
    return [found.record.name for found in queue.free(dead_holders=dead_holders)]


def test_a_training_whose_events_cannot_be_read_fails_at_its_next_worker(
    trainer: Trainer, base: StableDiffusion
) -> None:
    record = queued(trainer)
    damage_events(trainer, record.name)
    assert carry_out(trainer.store, record.name, base, "worker") is ExitCode.FAILED
    ended = trainer.trainings.get(record.name)
    assert (ended.state, ended.failure and ended.failure.reason) == (State.FAILED, "INTERNAL")
    assert free(trainer) == []
    with pytest.raises(UnreadableDocument):
        Journal(trainer.store, record.name).head()
    # Its adapter's id is free again.
    again = trainer.trainings.create(request(adapter_id="cat")).record
    assert free(trainer) == [again.name]


def test_a_training_whose_manifest_cannot_be_read_fails_and_its_events_say_so(
    trainer: Trainer, base: StableDiffusion
) -> None:
    record = queued(trainer)
    trainer.store.put(schema.adapter_manifest(record.adapter), b"")
    assert carry_out(trainer.store, record.name, base, "worker") is ExitCode.FAILED
    assert trainer.trainings.get(record.name).state is State.FAILED
    last = Journal(trainer.store, record.name).last_segment()
    assert last is not None
    assert isinstance(last.events[-1].what, Ended)


def test_what_was_published_has_succeeded_whatever_became_of_its_events(
    trainer: Trainer, base: StableDiffusion
) -> None:
    record = taken(trainer, queued(trainer))
    publish_adapter(trainer.store, record)
    damage_events(trainer, record.name)
    assert free(trainer, record.holder) == [record.name]
    assert carry_out(trainer.store, record.name, base, "worker") is ExitCode.DONE
    assert trainer.trainings.get(record.name).state is State.SUCCEEDED


def test_a_training_whose_events_cannot_be_read_can_be_cancelled(trainer: Trainer) -> None:
    record = queued(trainer)
    damage_events(trainer, record.name)
    assert trainer.trainings.cancel(record.name).state is State.CANCELLED
    assert free(trainer) == []
