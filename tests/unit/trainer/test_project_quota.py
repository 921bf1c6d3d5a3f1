"""The quota of active trainings: what counts, what a repeat gets, and how far racing creations may go beyond it."""

import threading
import uuid
from collections.abc import Callable, Iterator

import pytest

from service_kit import schema
from service_kit.errors import InvalidRequest, ResourceExists, TryLater
from service_kit.memory_store import MemoryStore
from service_kit.store import StoreUnavailable
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.lifecycle import State
from trainer_service.trainings import Trainings

RACERS = 12


def limited(trainer: Trainer, most: int) -> Trainings:
    """The trainings of one more process on the trainer's bucket."""
    return Trainings(trainer.store, trainer.datasets, trainer.base_models, lambda entry, prompt: 1, trainer.clock, most)


def queued(trainer: Trainer) -> list[str]:
    return list(trainer.store.keys(schema.queue_prefix()))


def raced(calls: list[Callable[[], object]]) -> list[object]:
    """What each call gave or raised; all begin at once."""
    begin, results = threading.Barrier(len(calls)), list[object]()

    def run(call: Callable[[], object]) -> None:
        begin.wait()
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_project_at_its_quota_is_told_so_and_when_to_come_back(trainer: Trainer) -> None:
    trainer.dataset()
    trainings = limited(trainer, 2)
    for adapter in ("a", "b"):
        trainings.create(request(adapter_id=adapter))
    with pytest.raises(TryLater) as caught:
        trainings.create(request(adapter_id="c"))
    error = caught.value
    assert (error.reason, error.quota_of, error.retry_after_s) == ("PROJECT_TRAININGS", "projects/default", 30.0)
    assert len(queued(trainer)) == 2
    # Refused means untouched: the id is not taken.
    assert not list(trainer.store.keys("projects/default/adapters/c/"))


def test_what_has_ended_and_what_is_of_another_project_does_not_count(trainer: Trainer) -> None:
    trainer.dataset()
    trainings = limited(trainer, 1)
    first = trainings.create(request(adapter_id="a")).record
    assert trainings.cancel(first.name).state is State.CANCELLED
    other = trainer.datasets.create("projects/other", "cat", "", "")
    trainer.store.put("queue/0000000000001.other.t1", b"")
    assert other.name.project == "other"
    trainings.create(request(adapter_id="b"))
    with pytest.raises(TryLater):
        trainings.create(request(adapter_id="c"))


def test_a_repeat_of_an_accepted_request_is_answered_however_full_it_is(trainer: Trainer) -> None:
    trainer.dataset()
    trainings, request_id = limited(trainer, 1), str(uuid.uuid4())
    first = trainings.create(request(request_id=request_id)).record
    assert trainings.create(request(request_id=request_id)).record == first


def test_a_creation_that_died_half_way_can_be_repeated_at_the_quota(trainer: Trainer) -> None:
    trainer.dataset()
    trainings, asked = limited(trainer, 1), request(request_id=str(uuid.uuid4()))
    record = trainings.create(asked).record
    trainer.store.delete(schema.training_record(record.name))
    assert trainings.create(asked).record.name == record.name


def test_what_is_wrong_is_said_before_the_quota_and_a_dry_run_takes_no_place(trainer: Trainer) -> None:
    trainer.dataset()
    trainings = limited(trainer, 1)
    trainings.create(request(adapter_id="a"))
    with pytest.raises(InvalidRequest):
        trainings.create(request(adapter_id="b", config={"rank": 0}))
    assert trainings.create(request(adapter_id="b", validate_only=True)).estimate is not None


def test_a_refused_or_failed_creation_gives_its_place_back(trainer: Trainer) -> None:
    class FailingStore(MemoryStore):
        away = False

        def create(self, key: str, body: bytes) -> str:
            if self.away and key.endswith("/reservation.json"):
                raise StoreUnavailable("away")
            return super().create(key, body)

    store = FailingStore()
    trainer = Trainer(store)
    trainer.dataset()
    trainings = limited(trainer, 2)
    trainings.create(request(adapter_id="a"))
    with pytest.raises(ResourceExists):
        trainings.create(request(adapter_id="a"))
    store.away = True
    with pytest.raises(StoreUnavailable):
        trainings.create(request(adapter_id="b"))
    store.away = False
    trainings.create(request(adapter_id="b"))
    with pytest.raises(TryLater):
        trainings.create(request(adapter_id="c"))


def test_racing_creations_of_one_process_never_exceed_the_quota(trainer: Trainer) -> None:
    trainer.dataset()
    trainings = limited(trainer, 3)
    results = raced([lambda n=n: trainings.create(request(adapter_id=f"a{n}")) for n in range(RACERS)])
    refused = [result for result in results if isinstance(result, TryLater)]
    assert (len(queued(trainer)), len(refused)) == (3, RACERS - 3)


def test_fifty_equal_requests_at_the_quota_are_one_training(trainer: Trainer) -> None:
    trainer.dataset()
    trainings, request_id = limited(trainer, 1), str(uuid.uuid4())
    results = raced([lambda: trainings.create(request(request_id=request_id))] * 50)
    assert {getattr(getattr(result, "record", None), "name", result) for result in results} == {
        trainings.create(request(request_id=request_id)).record.name
    }


def test_racing_processes_exceed_it_by_the_quota_of_each_at_most(trainer: Trainer) -> None:
    """Two processes that both look before either has written: the worst there is."""
    both_look = threading.Barrier(2)

    class WorstStore(MemoryStore):
        looks = 0

        def keys(self, prefix: str) -> Iterator[str]:
            found = list(super().keys(prefix))
            if prefix == schema.queue_prefix() and self.looks < 2:
                self.looks += 1
                both_look.wait(10)
            return iter(found)

    trainer = Trainer(WorstStore())
    trainer.dataset()
    processes = [limited(trainer, 1), limited(trainer, 1)]
    raced([lambda n=n: processes[n].create(request(adapter_id=f"a{n}")) for n in range(2)])
    assert len(queued(trainer)) == 2
    for process in processes:
        with pytest.raises(TryLater):
            process.create(request(adapter_id="later"))
