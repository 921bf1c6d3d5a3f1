"""A holder gives up in time on a store that does not answer, and outlives one that refuses it for a moment."""

import threading

import pytest

from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.store import ObjectExists, StoredObject, StoreForbidden
from tests.counting_store import CountingStore
from tests.unit.trainer.trainer_fakes import Clock, Trainer, request
from trainer_service.events import CheckpointSaved
from trainer_service.journal import Journal, JournalWriter
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker import lease_keeper
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper

WITHIN_S = 20.0


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def taken(trainer: Trainer) -> TrainingRecord:
    trainer.dataset(count=3)
    created = trainer.trainings.create(request()).record
    return TrainingStore(trainer.store).change(created.name, lambda found: found.taken("holder", trainer.clock()))


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_keeper, "HEARTBEAT_S", 0.02)
    monkeypatch.setattr(lease_keeper, "HOLDER_PATIENCE_S", 0.5)


def test_a_holder_gives_up_while_its_heartbeat_waits_for_a_silent_store(
    trainer: Trainer, taken: TrainingRecord
) -> None:
    silent, interrupts = CountingStore(trainer.store), Interrupts()
    answers = silent.held[schema.training_record(taken.name)] = threading.Event()
    with LeaseKeeper(TrainingStore(silent), taken, interrupts, Clock()):
        assert interrupts.lease_lost.wait(WITHIN_S)
        # Still in the same call.
        assert len(silent.calls) == 1
        answers.set()


class Refusing(MemoryStore):
    """Refuses reads and writes of our credentials while told to."""

    def __init__(self, behind: MemoryStore) -> None:
        super().__init__()
        self._objects = behind._objects
        self.refusals = 0
        self.refuses_after_conflict = False

    def get(self, key: str) -> StoredObject:
        self._refuse(key)
        return super().get(key)

    def create(self, key: str, body: bytes) -> str:
        self._refuse(key)
        try:
            return super().create(key, body)
        except ObjectExists:
            self.refusals += self.refuses_after_conflict
            raise

    def _refuse(self, key: str) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StoreForbidden(key)


def test_a_heartbeat_goes_on_after_a_refusal(
    trainer: Trainer, taken: TrainingRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_keeper, "HOLDER_PATIENCE_S", WITHIN_S)
    refusing, interrupts, renewed = Refusing(trainer.store), Interrupts(), threading.Event()
    refusing.refusals = 1

    def clock() -> object:
        renewed.set()
        return trainer.clock()

    with LeaseKeeper(TrainingStore(refusing), taken, interrupts, clock):  # type: ignore[arg-type]
        assert renewed.wait(WITHIN_S)
    assert refusing.refusals == 0
    assert not interrupts.lease_lost.is_set()


def test_events_that_were_refused_are_written_next(trainer: Trainer, taken: TrainingRecord) -> None:
    refusing = Refusing(trainer.store)
    writer = JournalWriter(refusing, taken.name, taken.epoch, trainer.clock)
    refusing.refusals = 1
    with pytest.raises(StoreForbidden):
        writer.append([CheckpointSaved(step=1)])
    writer.append([CheckpointSaved(step=2)])
    assert [key[-8:-5] for key in trainer.store.keys(schema.events_prefix(taken.name))] == ["001", "002", "003"]


def test_events_are_kept_when_what_another_wrote_in_their_place_cannot_be_read(
    trainer: Trainer, taken: TrainingRecord
) -> None:
    refusing = Refusing(trainer.store)
    refusing.refuses_after_conflict = True
    writer = JournalWriter(refusing, taken.name, taken.epoch, trainer.clock)
    JournalWriter(trainer.store, taken.name, 0, trainer.clock).append([CheckpointSaved(step=1)])
    with pytest.raises(StoreForbidden):
        writer.append([CheckpointSaved(step=2)])
    refusing.refuses_after_conflict = False
    writer.append([])
    assert Journal(trainer.store, taken.name).head() == 3
