"""Deleting: what is gone when the call returns, what is left after the sweep, and what a repeat answers."""

import asyncio
import uuid

import pytest

from inference_service.made_images import MadeImages
from service_kit import schema
from service_kit.errors import InvalidRequest, PreconditionUnmet, ResourceExists, ResourceMissing
from service_kit.names import AdapterName, AdapterVersionName
from service_kit.tombstone import Tombstone, read_tombstone
from tests.interrupted_store import InterruptedStore
from tests.unit.trainer.made_things import ALL, DIGEST, PROJECT, deletion, draw, left, make, sweep, taken
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service import watching
from trainer_service.adapters import Adapters
from trainer_service.lifecycle import State
from trainer_service.remains import LAST_SWEEP_AFTER_S, Remains
from trainer_service.training_store import TrainingStore
from trainer_service.watching import Watching

ONCE = str(uuid.UUID(int=1))
OTHER = str(uuid.UUID(int=2))


def test_a_deleted_dataset_takes_all_that_was_made_of_it_and_leaves_names_and_times(trainer: Trainer) -> None:
    made = make(trainer)
    assert deletion(trainer).delete_dataset(made.dataset, ONCE) == [made.training]
    for read in (
        lambda: trainer.datasets.get(made.dataset),
        lambda: trainer.trainings.get(made.training),
        lambda: Adapters(trainer.store).get(made.adapter),
        lambda: Adapters(trainer.store).get(made.adapter.adapter_name),
        lambda: trainer.trainings.create(request()),
        lambda: trainer.datasets.add(made.dataset, []),
    ):
        with pytest.raises(ResourceMissing):
            read()
    assert trainer.datasets.page(PROJECT, ALL) == trainer.trainings.page(PROJECT, ALL) == ([], "")
    assert Adapters(trainer.store).page(PROJECT, ALL) == ([], "")
    sweep(trainer.store)
    assert left(trainer.store) == []
    for name, request_id in ((made.dataset, ONCE), (made.training, ""), (made.adapter, "")):
        tombstone = Tombstone(name=str(name), deleted_at=trainer.clock(), request_id=request_id)
        assert read_tombstone(trainer.store, name) == tombstone


def test_what_others_made_stays(trainer: Trainer) -> None:
    other = make(trainer, "dog", "dog")
    before = left(trainer.store)
    deletion(trainer).delete_dataset(make(trainer).dataset, "")
    sweep(trainer.store)
    assert left(trainer.store) == before
    assert trainer.trainings.get(other.training).state is State.SUCCEEDED


def test_a_running_training_of_a_deleted_dataset_loses_its_lease_and_keeps_its_record_until_then(
    trainer: Trainer,
) -> None:
    name = trainer.dataset(count=3)
    record = taken(trainer, trainer.trainings.create(request()).record)
    deletion(trainer).delete_dataset(name, "")
    with pytest.raises(ResourceMissing):
        TrainingStore(trainer.store).change(record.name, lambda found: found.held("worker", 1))
    remains = Remains(trainer.store)
    list(remains.sweep(0.0))
    list(remains.sweep(LAST_SWEEP_AFTER_S - 1))
    assert schema.training_record(record.name) in left(trainer.store)
    list(remains.sweep(LAST_SWEEP_AFTER_S))
    assert left(trainer.store) == []


def test_a_deleted_training_leaves_its_adapter_which_still_goes_with_the_dataset(trainer: Trainer) -> None:
    made = make(trainer)
    deletion(trainer).delete_training(made.training, "")
    with pytest.raises(ResourceMissing):
        trainer.trainings.get(made.training)
    sweep(trainer.store)
    assert [key for key in left(trainer.store) if key.startswith(f"{made.training}/")] == []
    assert Adapters(trainer.store).get(made.adapter).training == str(made.training)
    deletion(trainer).delete_dataset(made.dataset, "")
    sweep(trainer.store)
    assert left(trainer.store) == []


def test_a_training_that_has_not_ended_is_not_deleted(trainer: Trainer) -> None:
    trainer.dataset(count=3)
    name = trainer.trainings.create(request()).record.name
    with pytest.raises(PreconditionUnmet, match="QUEUED; cancel it") as caught:
        deletion(trainer).delete_training(name, "")
    assert caught.value.reason == "TRAINING_NOT_ENDED"
    trainer.trainings.cancel(name)
    deletion(trainer).delete_training(name, "")


def test_a_deleted_adapter_takes_its_images_along_and_keeps_its_number(trainer: Trainer) -> None:
    made = make(trainer)
    image = draw(trainer.store, made.adapter, made.dataset)
    deletion(trainer).delete_adapter(made.adapter, "")
    with pytest.raises(ResourceMissing):
        Adapters(trainer.store).open(made.adapter, "", 0)
    assert MadeImages(trainer.store, "bucket").page(str(made.adapter), 0, "") == ([], "")
    sweep(trainer.store)
    keys = list(trainer.store.keys(""))
    assert [key for key in keys if key.startswith(schema.folder(made.adapter))] == [schema.tombstone(made.adapter)]
    assert image not in keys
    assert schema.image_ledger_entry(PROJECT, DIGEST) in keys
    assert trainer.trainings.get(made.training).state is State.SUCCEEDED
    # Its id is free, as after a training that came to nothing; its number is not.
    assert trainer.trainings.create(request()).record.adapter_version == 2


def test_all_published_versions_go_and_a_repeat_takes_no_later_one(trainer: Trainer) -> None:
    first, second = make(trainer), make(trainer, new_version=True)
    waiting = trainer.trainings.create(request(new_version=True)).record
    name = AdapterName("default", "cat")
    deletion(trainer).delete_adapter(name, ONCE)
    for version in (first.adapter, second.adapter):
        with pytest.raises(ResourceMissing):
            Adapters(trainer.store).get(version)
    assert trainer.trainings.get(waiting.name).state is State.QUEUED
    later = make(trainer, new_version=True)
    deletion(trainer).delete_adapter(name, ONCE)
    assert Adapters(trainer.store).get(name).name == later.adapter == AdapterVersionName("default", "cat", 4)
    deletion(trainer).delete_adapter(name, OTHER)
    with pytest.raises(ResourceMissing):
        deletion(trainer).delete_adapter(name, "")


@pytest.mark.parametrize("kind", ["dataset", "training", "adapter"])
def test_a_repeat_is_the_same_deletion_and_another_finds_nothing(trainer: Trainer, kind: str) -> None:
    name = getattr(make(trainer), kind)
    delete = getattr(deletion(trainer), f"delete_{kind}")
    with pytest.raises(InvalidRequest, match="request_id"):
        delete(name, "not a uuid")
    for _ in range(2):
        delete(name, ONCE)
        sweep(trainer.store)
    for request_id in ("", OTHER):
        with pytest.raises(ResourceMissing):
            delete(name, request_id)


@pytest.mark.parametrize("kind", ["dataset", "training", "adapter"])
def test_what_never_was_is_not_found_and_gets_no_tombstone(trainer: Trainer, kind: str) -> None:
    name = getattr(make(Trainer()), kind)
    with pytest.raises(ResourceMissing):
        getattr(deletion(trainer), f"delete_{kind}")(name, ONCE)
    assert list(trainer.store.keys("")) == []


def test_ids_and_request_ids_of_deleted_things_are_not_given_again(trainer: Trainer) -> None:
    name = trainer.dataset(count=3)
    training = trainer.trainings.create(request(request_id=ONCE)).record.name
    trainer.trainings.cancel(training)
    deletion(trainer).delete_training(training, "")
    sweep(trainer.store)
    with pytest.raises(ResourceExists, match="was deleted") as caught:
        trainer.trainings.create(request(request_id=ONCE))
    assert caught.value.reason == "DELETED"
    deletion(trainer).delete_dataset(name, "")
    for _ in range(2):
        with pytest.raises(ResourceExists, match="was deleted") as caught:
            trainer.datasets.create("", "cat", "", "")
        assert caught.value.reason == "DELETED"
        sweep(trainer.store)
    # Not even for a moment.
    never = InterruptedStore(trainer.store, lambda keys: False, lambda: None)
    with pytest.raises(ResourceExists):
        Trainer(never).datasets.create("", "cat", "", "")
    assert never.writes == []


def test_who_watches_a_training_that_is_deleted_is_told(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "HEARTBEAT_S", 0.05)
    name = trainer.dataset(count=3)
    record = taken(trainer, trainer.trainings.create(request()).record)

    async def watch() -> None:
        async for _ in Watching(trainer.store, trainer.trainings, asyncio.Event()).watch(record.name, 0):
            deletion(trainer).delete_dataset(name, ONCE)

    with pytest.raises(ResourceMissing, match="Training"):
        asyncio.run(asyncio.wait_for(watch(), 30))


def test_who_reads_a_file_of_an_adapter_that_is_deleted_is_told(trainer: Trainer) -> None:
    made, adapters = make(trainer), Adapters(trainer.store)
    artifact = adapters.open(made.adapter, "", 0)
    deletion(trainer).delete_adapter(made.adapter, "")
    sweep(trainer.store)
    with pytest.raises(ResourceMissing, match="deleted meanwhile"):
        list(adapters.read(artifact, 0))


def test_a_damaged_adapter_can_be_deleted(trainer: Trainer) -> None:
    made = make(trainer)
    trainer.store.put(schema.adapter_manifest(made.adapter), b"{")
    deletion(trainer).delete_adapter(made.adapter, "")
    sweep(trainer.store)
    assert [key for key in left(trainer.store) if key.startswith(schema.folder(made.adapter))] == []
