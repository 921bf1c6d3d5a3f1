"""Stages that are stuck: noticed by their silence alone, let go by name, never mistaken for slow ones."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.store import StoreUnavailable
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.ending import last_event
from trainer_service.events import Notice, StateChanged
from trainer_service.journal import Journal
from trainer_service.lifecycle import Stage, State
from trainer_service.training_record import MAX_STUCK_TAKES, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.evaluating import MAX_TAKES
from trainer_service.worker.exit_code import ExitCode
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.reporter import SignOfLife
from trainer_service.worker.watchdog import PATIENCE_S, Watchdog, let_go, let_go_and_leave

SILENT_S = 301.0


@dataclass
class Life:
    """A stage's latest sign of life, and the time now."""

    stage: Stage = Stage.STEPPING
    sign_s: float = 0.0
    now_s: float = 0.0

    def watchdog(self, factor: float = 1.0) -> Watchdog:
        return Watchdog(lambda: SignOfLife(self.stage, self.sign_s), factor, lambda *_: None, lambda: self.now_s)


def _now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer()


@pytest.fixture
def taken(trainer: Trainer) -> TrainingRecord:
    trainer.dataset(count=3)
    record = trainer.trainings.create(request()).record
    return TrainingStore(trainer.store).change(record.name, lambda found: found.taken("worker", _now()))


def keeper_of(store: MemoryStore, record: TrainingRecord) -> LeaseKeeper:
    return LeaseKeeper(TrainingStore(store), record, Interrupts(), _now)


@pytest.mark.parametrize("stage", Stage)
def test_a_stage_is_stuck_once_its_silence_is_longer_than_its_patience(stage: Stage) -> None:
    life = Life(stage)
    life.now_s = PATIENCE_S[stage]
    assert life.watchdog().stuck() is None
    life.now_s += 0.1
    assert life.watchdog().stuck() == (stage, life.now_s)
    assert life.watchdog(factor=2.0).stuck() is None


def test_a_long_stage_that_shows_signs_of_life_is_never_stuck() -> None:
    life = Life()
    for _ in range(100):
        life.now_s += 0.9 * PATIENCE_S[life.stage]
        assert life.watchdog().stuck() is None
        life.sign_s = life.now_s


def test_a_silent_stage_is_let_go_once_with_its_name_and_seconds() -> None:
    found: list[tuple[Stage, float]] = []
    over = threading.Event()

    def note(stage: Stage, silent_s: float) -> None:
        found.append((stage, silent_s))
        over.set()

    life = Life(Stage.ENCODING, now_s=1000.0)
    with Watchdog(lambda: SignOfLife(life.stage, life.sign_s), 1.0, note, lambda: life.now_s):
        assert over.wait(20)
    assert found == [(Stage.ENCODING, 1000.0)]


def test_another_worker_tries_before_a_stuck_stage_fails_the_training(trainer: Trainer, taken: TrainingRecord) -> None:
    records = TrainingStore(trainer.store)
    for _ in range(1, MAX_STUCK_TAKES):
        exit_code = let_go(trainer.store, keeper_of(trainer.store, taken), Stage.FETCHING_IMAGES, SILENT_S, _now)
        assert exit_code is ExitCode.TRY_AGAIN
        waiting, _ = records.read(taken.name)
        assert (waiting.state, waiting.holder) == (State.QUEUED, "")
        segment = Journal(trainer.store, taken.name).last_segment()
        assert segment is not None
        notice, queued = (event.what for event in segment.events)
        assert isinstance(notice, Notice)
        assert notice.reason == "STAGE_STUCK"
        assert "fetching_images gave no sign of life for 301 s" in notice.message
        assert queued == StateChanged(state=State.QUEUED)
        taken = records.change(taken.name, lambda found: found.taken("another", _now()))
    exit_code = let_go(trainer.store, keeper_of(trainer.store, taken), Stage.FETCHING_IMAGES, SILENT_S, _now)
    assert exit_code is ExitCode.FAILED
    failed, _ = records.read(taken.name)
    assert failed.state is State.FAILED
    assert failed.failure is not None
    assert failed.failure.reason == "STAGE_STUCK"
    assert "fetching_images gave no sign of life for 301 s" in failed.failure.message
    assert last_event(trainer.store, failed).failure == failed.failure
    assert not list(trainer.store.keys(schema.queue_prefix()))


def test_a_stage_that_hangs_after_a_cancel_ends_the_training_cancelled(trainer: Trainer, taken: TrainingRecord) -> None:
    trainer.trainings.cancel(taken.name)
    assert let_go(trainer.store, keeper_of(trainer.store, taken), Stage.STEPPING, SILENT_S, _now) is ExitCode.DONE
    assert TrainingStore(trainer.store).read(taken.name)[0].state is State.CANCELLED


def test_a_training_that_somebody_else_took_meanwhile_is_left_alone(trainer: Trainer, taken: TrainingRecord) -> None:
    records = TrainingStore(trainer.store)
    keeper = keeper_of(trainer.store, taken)
    other = records.change(taken.name, lambda found: found.taken("another", _now()))
    left: list[int] = []
    let_go_and_leave(trainer.store, keeper, _now, left.append)(Stage.STEPPING, SILENT_S)
    assert left == [ExitCode.TRY_AGAIN]
    assert records.read(taken.name)[0] == other


def test_the_process_ends_even_where_the_store_is_away(
    trainer: Trainer, taken: TrainingRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str) -> None:
        raise StoreUnavailable(key)

    monkeypatch.setattr(trainer.store, "get", away)
    left: list[int] = []
    keeper = keeper_of(trainer.store, taken)
    let_go_and_leave(trainer.store, keeper, _now, left.append)(Stage.STEPPING, SILENT_S)
    assert left == [ExitCode.TRY_AGAIN]


def test_an_evaluation_that_hangs_is_left_out_before_it_could_fail_the_training() -> None:
    assert MAX_STUCK_TAKES > MAX_TAKES
