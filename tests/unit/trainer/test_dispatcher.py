"""What the dispatcher does with trainings that nobody carries out, without a single worker of its own."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from service_kit import schema
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import dispatcher, training_record
from trainer_service.dispatcher import Dispatcher
from trainer_service.events import StateChanged
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore

PATIENCE_S = 0.2
WITHIN_S = 20


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def running(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> TrainingRecord:
    """A training in the midst of its steps, held by somebody."""
    monkeypatch.setattr(training_record, "TAKEOVER_PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(dispatcher, "HEARTBEAT_S", PATIENCE_S / 10)
    trainer.dataset(count=3)
    record = trainer.trainings.create(request()).record
    taken = record.taken("somebody", now()).moved(State.TRAINING)
    return TrainingStore(trainer.store).change(record.name, lambda _: taken)


def dispatch_until(trainer: Trainer, holds: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
    """Run a dispatcher without workers until something holds, doing something again and again meanwhile."""

    async def run() -> None:
        nobody = Dispatcher(trainer.store, [], now)
        nobody.start()
        while not holds():
            meanwhile()
            await asyncio.sleep(PATIENCE_S / 10)
        await nobody.stop(1.0)

    asyncio.run(asyncio.wait_for(run(), WITHIN_S))


def test_a_training_whose_worker_is_gone_is_soon_not_called_running_even_without_workers(
    trainer: Trainer, running: TrainingRecord
) -> None:
    records = TrainingStore(trainer.store)
    dispatch_until(trainer, lambda: records.read(running.name)[0].state is State.QUEUED, lambda: None)
    found, _ = records.read(running.name)
    assert (found.holder, found.epoch, found.fruitless_takes) == ("", 1, 1)
    segment = Journal(trainer.store, running.name).last_segment()
    assert segment is not None
    assert segment.events[-1].what == StateChanged(state=State.QUEUED)


def test_a_training_whose_lease_is_renewed_is_left_alone(trainer: Trainer, running: TrainingRecord) -> None:
    records = TrainingStore(trainer.store)
    step = 0

    def renew() -> None:
        nonlocal step
        step += 1
        records.change(running.name, lambda record: record.held("somebody", 1).renewed(step, now()))

    dispatch_until(trainer, lambda: step > 20, renew)
    assert records.read(running.name)[0].holder == "somebody"


def test_a_cancel_that_died_half_way_leaves_a_queued_training_that_can_be_cancelled_again(
    trainer: Trainer, running: TrainingRecord
) -> None:
    other = trainer.trainings.create(request(adapter_id="other")).record
    records = TrainingStore(trainer.store)
    half = {"cancel_requested": True, "holder": "canceller", "epoch": 1}
    records.change(other.name, lambda record: record.model_copy(update=half))
    dispatch_until(trainer, lambda: not records.read(other.name)[0].holder, lambda: None)
    assert records.read(other.name)[0].state is State.QUEUED
    assert Journal(trainer.store, other.name).head() == 1
    assert trainer.trainings.cancel(other.name).state is State.CANCELLED
    assert other.queue_key not in list(trainer.store.keys(schema.queue_prefix()))
