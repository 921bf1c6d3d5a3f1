"""Watching from the caller's side: signs of life in quiet whiles, and what a stopping service says."""

import asyncio
import itertools

import pytest

from service_kit.errors import ResourceMissing, ServiceUnavailable
from service_kit.names import TrainingName
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import watching
from trainer_service.events import Ended, Event
from trainer_service.journal import JournalWriter
from trainer_service.lifecycle import State
from trainer_service.training_record import TrainingRecord
from trainer_service.watching import Heartbeat, Watching


@pytest.fixture
def record(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> TrainingRecord:
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.05)
    trainer.dataset()
    return trainer.trainings.create(request()).record


def test_a_quiet_training_gives_heartbeats_and_then_its_events(trainer: Trainer, record: TrainingRecord) -> None:
    async def watch() -> list[Event | Heartbeat]:
        seen: list[Event | Heartbeat] = []
        async for found in Watching(trainer.store, trainer.trainings, asyncio.Event()).watch(record.name, 0):
            seen.append(found)
            if found == Heartbeat() and seen.count(found) == 3:
                JournalWriter(trainer.store, record.name, 1, trainer.clock).append([Ended(state=State.FAILED)])
        return seen

    seen = asyncio.run(asyncio.wait_for(watch(), 30))
    assert [found.sequence for found in seen if isinstance(found, Event)] == [1, 2]
    runs = [kind for kind, _ in itertools.groupby(type(found) for found in seen)]
    assert runs == [Event, Heartbeat, Event]


def test_a_stopping_service_sends_its_watchers_away_with_a_time_to_come_back(
    trainer: Trainer, record: TrainingRecord
) -> None:
    async def watch() -> None:
        stopping = asyncio.Event()
        async for _ in Watching(trainer.store, trainer.trainings, stopping).watch(record.name, 0):
            stopping.set()

    with pytest.raises(ServiceUnavailable) as caught:
        asyncio.run(asyncio.wait_for(watch(), 30))
    assert (caught.value.reason, caught.value.retry_after_s) == ("DRAINING", 1.0)


def test_watching_nothing_is_not_found(trainer: Trainer) -> None:
    async def watch() -> None:
        nobody = TrainingName("default", "nobody")
        async for _ in Watching(trainer.store, trainer.trainings, asyncio.Event()).watch(nobody, 0):
            pass

    with pytest.raises(ResourceMissing):
        asyncio.run(watch())
