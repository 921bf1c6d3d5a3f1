"""A worker that was taken for dead wakes up again: it can write nothing any more. And that it is the fence which holds.

Each case does the same twice: with the fence, when nothing of the old worker's may arrive, and with the fence switched
off, when the harm must happen: so a test that no longer reaches the fence fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
import torch

from service_kit import schema
from service_kit.adapter_manifest import read_manifest
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.ending import end_training
from trainer_service.events import CheckpointSaved, Failure
from trainer_service.journal import Journal, JournalWriter
from trainer_service.lifecycle import State
from trainer_service.training_record import LeaseLost, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.checkpoints import Checkpoints
from trainer_service.worker.interrupts import Interrupts
from trainer_service.worker.lease_keeper import LeaseKeeper
from trainer_service.worker.publishing import Outcome, publish
from trainer_service.worker.trainee import Weights
from trainer_service.worker.training_loop import Snapshot, Standing

pytestmark = pytest.mark.faults

NEWEST = 999


def now() -> datetime:
    return datetime.now(UTC)


def snapshot(step: int) -> Snapshot:
    own = {"a": torch.full((3,), float(step))}
    return Snapshot(step, Weights(own, {}, {"a.step": torch.tensor(float(step))}), {}, Standing())


@dataclass
class TwoWorkers:
    """A training that `old` held, with all that it writes with, and that `new` took over and went on with."""

    trainer: Trainer = field(default_factory=Trainer)

    def __post_init__(self) -> None:
        self.store = self.trainer.store
        self.records = TrainingStore(self.store)
        self.trainer.dataset(count=3)
        created = self.trainer.trainings.create(request()).record
        self.old = self.records.change(created.name, lambda found: found.taken("old", now()))
        self.old_keeper = LeaseKeeper(self.records, self.old, Interrupts(), now)
        self.old_checkpoints = Checkpoints(self.store, created.name, self.old.epoch)
        self.old_writer = JournalWriter(self.store, created.name, self.old.epoch, now)
        self.old_checkpoints.save(snapshot(10))
        self.new = self.records.change(created.name, lambda found: found.taken("new", now()).checkpointed(20))
        Checkpoints(self.store, created.name, self.new.epoch).save(snapshot(20))
        JournalWriter(self.store, created.name, self.new.epoch, now).append([CheckpointSaved(step=20)])

    def step_to_go_on_from(self) -> int:
        checkpoints = Checkpoints(self.store, self.new.name, self.new.epoch)
        loaded = checkpoints.load(checkpoints.latest())
        assert loaded is not None
        return loaded.step

    def epochs_of_events(self) -> list[int]:
        segment = Journal(self.store, self.new.name).last_segment()
        assert segment is not None
        head = segment.events[-1].sequence
        segments = [Journal(self.store, self.new.name).segment_with(sequence) for sequence in range(1, head + 1)]
        return [segment.epoch for segment in segments if segment is not None]


@pytest.fixture
def two() -> TwoWorkers:
    return TwoWorkers()


def save_a_checkpoint(two: TwoWorkers) -> None:
    two.old_checkpoints.save(snapshot(11))


def write_an_event(two: TwoWorkers) -> None:
    two.old_writer.append([CheckpointSaved(step=11)])


def write_an_event_with_a_writer_made_late(two: TwoWorkers) -> None:
    JournalWriter(two.store, two.old.name, two.old_writer._epoch, now).append([CheckpointSaved(step=11)])


def change_the_record(two: TwoWorkers) -> None:
    two.old_keeper.change(lambda record: record.renewed(11, now()))


def fail_the_training(two: TwoWorkers) -> None:
    record = two.old_keeper.change(lambda record: record)
    end_training(two.store, record, State.FAILED, Failure(reason="TEST", message="too late"), now)


def publish_an_adapter(two: TwoWorkers) -> None:
    dataset, outcome = two.records.dataset(two.old.name), Outcome(b"old", 10, None, None, ())
    publish(two.store, two.old, dataset, "digest", "StableDiffusionPipeline", outcome, now)


def without_a_record_fence(two: TwoWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingRecord, "held", lambda self, holder, epoch: self)


def without_epochs(two: TwoWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if nobody compared epochs: the old worker's counts as the newest.
    monkeypatch.setattr(two.old_checkpoints, "_epoch", NEWEST)
    monkeypatch.setattr(two.old_writer, "_epoch", NEWEST)


CASES: dict[str, tuple[Callable[..., None], Callable[..., None], Callable[[TwoWorkers], bool]]] = {
    "a checkpoint's pointer": (save_a_checkpoint, without_epochs, lambda two: two.step_to_go_on_from() != 20),
    "an event": (write_an_event, without_epochs, lambda two: two.epochs_of_events()[-1] != 2),
    "an event of a writer made late": (
        write_an_event_with_a_writer_made_late,
        without_epochs,
        lambda two: two.epochs_of_events()[-1] != 2,
    ),
    "the record": (
        change_the_record,
        without_a_record_fence,
        lambda two: two.records.read(two.new.name)[0].completed_steps != 20,
    ),
    "the end": (
        fail_the_training,
        without_a_record_fence,
        lambda two: two.records.read(two.new.name)[0].state is State.FAILED,
    ),
    "the manifest": (
        publish_an_adapter,
        without_a_record_fence,
        lambda two: read_manifest(two.store, two.new.adapter) is not None,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_old_holder_can_no_longer_write(two: TwoWorkers, case: str) -> None:
    write, _, harmed = CASES[case]
    with pytest.raises(LeaseLost):
        write(two)
    assert not harmed(two)


@pytest.mark.parametrize("case", CASES)
def test_without_the_fence_the_old_holder_does_harm(
    two: TwoWorkers, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, switch_off, harmed = CASES[case]
    switch_off(two, monkeypatch)
    write(two)
    assert harmed(two)


def test_an_old_holder_that_tidies_up_late_deletes_nothing_of_the_new_one(
    two: TwoWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It moved the pointer in time, was frozen there, and goes on after the new worker has saved.
    monkeypatch.setattr(two.old_checkpoints, "_point_to", lambda pointer: None)
    two.old_checkpoints.save(snapshot(11))
    assert two.step_to_go_on_from() == 20
    kept = {
        key.split("/")[-2] for key in two.store.keys(schema.checkpoints_prefix(two.new.name)) if "latest" not in key
    }
    assert kept == {"000001-00000011", "000002-00000020"}
