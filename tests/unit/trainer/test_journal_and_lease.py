"""Two writers, one journal; one lease, two workers."""

import asyncio

import pytest

from service_kit.errors import SequenceOutOfRange
from service_kit.memory_store import MemoryStore
from service_kit.names import TrainingName
from tests.unit.trainer.trainer_fakes import Clock, Trainer, request
from trainer_service.events import CheckpointSaved, Ended, Event, Notice, StateChanged
from trainer_service.handing_back import say_handed_back
from trainer_service.journal import Journal, JournalWriter
from trainer_service.lifecycle import State
from trainer_service.training_record import MAX_FRUITLESS_TAKES, TAKEOVER_PATIENCE_S, LeaseLost, LeaseWatch
from trainer_service.training_store import TrainingStore

NAME = TrainingName("default", "t")


def collect(store: MemoryStore, after: int) -> list[Event]:
    async def follow() -> list[Event]:
        return [event async for event in Journal(store, NAME).follow(after)]

    return asyncio.run(asyncio.wait_for(follow(), 10))


def writer(store: MemoryStore, epoch: int) -> JournalWriter:
    return JournalWriter(store, NAME, epoch, Clock())


def test_a_replay_from_any_sequence_gives_exactly_the_rest() -> None:
    store = MemoryStore()
    journal = writer(store, 1)
    journal.append([StateChanged(state=State.PREPARING)])
    journal.append([CheckpointSaved(step=step) for step in range(5)])
    journal.append([Ended(state=State.SUCCEEDED)])
    for after in range(7):
        assert [event.sequence for event in collect(store, after)] == list(range(after + 1, 8))


def test_a_follower_gets_what_is_written_later_and_stops_after_the_end() -> None:
    store = MemoryStore()
    journal = writer(store, 1)
    journal.append([StateChanged(state=State.PREPARING)])

    async def follow() -> list[int]:
        seen = []
        async for event in Journal(store, NAME).follow(0):
            seen.append(event.sequence)
            if event.sequence == 1:
                await asyncio.to_thread(journal.append, [Notice(reason="A", message="a"), Ended(state=State.FAILED)])
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 10)) == [1, 2, 3]


@pytest.mark.parametrize("after", [-1, 2, 99])
def test_a_sequence_that_does_not_exist_is_out_of_range_and_the_range_is_named(after: int) -> None:
    store = MemoryStore()
    writer(store, 1).append([StateChanged(state=State.PREPARING)])
    with pytest.raises(SequenceOutOfRange, match="0 to 1"):
        collect(store, after)


def test_a_writer_stops_when_a_newer_epoch_has_written() -> None:
    store = MemoryStore()
    old = writer(store, 1)
    old.append([StateChanged(state=State.PREPARING)])
    writer(store, 2).append([StateChanged(state=State.PREPARING)])
    with pytest.raises(LeaseLost):
        old.append([CheckpointSaved(step=1)])


def test_a_writer_appends_after_what_an_older_epoch_still_wrote() -> None:
    store = MemoryStore()
    old, new = writer(store, 1), writer(store, 2)
    old.append([CheckpointSaved(step=1), CheckpointSaved(step=2)])
    new.append([Ended(state=State.SUCCEEDED)])
    assert [(event.sequence, event.epoch) for event in collect(store, 0)] == [(1, 1), (2, 1), (3, 2)]


def test_nothing_is_written_after_the_last_event() -> None:
    store = MemoryStore()
    early, late = writer(store, 1), writer(store, 2)
    early.append([Ended(state=State.CANCELLED)])
    with pytest.raises(LeaseLost):
        late.append([CheckpointSaved(step=1)])
    assert writer(store, 3).has_ended


def test_what_is_handed_back_half_ended_gets_no_event_after_its_last(trainer: Trainer) -> None:
    trainer.dataset(count=3)
    created = trainer.trainings.create(request()).record
    record = TrainingStore(trainer.store).change(created.name, lambda found: found.taken("a", trainer.clock()))
    JournalWriter(trainer.store, record.name, record.epoch, trainer.clock).append([Ended(state=State.SUCCEEDED)])
    say_handed_back(trainer.store, record.abandoned("a"), trainer.clock)
    assert Journal(trainer.store, record.name).head() == 2


def test_a_lease_may_be_taken_over_only_after_it_stood_still_for_long_enough() -> None:
    watch = LeaseWatch()
    assert not watch.is_stale(NAME, "a", 0.0)
    assert not watch.is_stale(NAME, "a", TAKEOVER_PATIENCE_S - 0.1)
    assert not watch.is_stale(NAME, "b", TAKEOVER_PATIENCE_S)
    assert not watch.is_stale(NAME, "b", 2 * TAKEOVER_PATIENCE_S - 0.1)
    assert watch.is_stale(NAME, "b", 2 * TAKEOVER_PATIENCE_S)


def test_a_holder_is_shut_out_by_the_next_take(trainer: Trainer) -> None:
    trainer.dataset()
    record = trainer.trainings.create(request()).record
    records = TrainingStore(trainer.store)
    first = records.change(record.name, lambda found: found.taken("a", trainer.clock()))
    second = records.change(record.name, lambda found: found.taken("b", trainer.clock()))
    assert (first.epoch, second.epoch) == (1, 2)
    with pytest.raises(LeaseLost):
        records.change(record.name, lambda found: found.held("a", 1))
    assert records.read(record.name)[0].held("b", 2) == second


def test_takes_count_as_fruitless_until_a_checkpoint_or_a_handover(trainer: Trainer) -> None:
    trainer.dataset()
    record = trainer.trainings.create(request()).record
    for take in range(MAX_FRUITLESS_TAKES):
        record = record.taken("a", trainer.clock()).abandoned("a")
        assert record.fruitless_takes == take + 1
    assert record.taken("a", trainer.clock()).checkpointed(10).fruitless_takes == 0
    assert record.taken("a", trainer.clock()).released().fruitless_takes == 0
