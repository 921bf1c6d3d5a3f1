"""A deletion that is killed at any write, or meets others that write: the sweep leaves tombstones and nothing else."""

from collections.abc import Callable
from itertools import zip_longest

import pytest

from service_kit.errors import ResourceExists, ResourceMissing
from service_kit.memory_store import MemoryStore
from service_kit.names import DatasetName
from service_kit.store import StoredObject, StoreUnavailable
from service_kit.tombstone import enter_deletion, read_tombstone
from tests.interrupted_store import InterruptedStore
from tests.unit.trainer.made_things import (
    DIGEST,
    Made,
    deletion,
    draw,
    left,
    make,
    publish_adapter,
    sweep,
    taken,
)
from tests.unit.trainer.trainer_fakes import Trainer, bundled, request
from tests.unit.worker.dying_worker import DyingStore
from trainer_service.deletion import Deletion
from trainer_service.remains import LAST_SWEEP_AFTER_S, Remains
from trainer_service.training_record import LeaseLost
from trainer_service.worker.publishing import have_swept_if_deleted

KINDS = ("dataset", "training", "adapter")


def delete(store: MemoryStore, made: Made, kind: str, trainer: Trainer) -> None:
    getattr(Deletion(store, trainer.clock), f"delete_{kind}")(getattr(made, kind), "")


def all_of(trainer: Trainer, made: Made) -> None:
    """Delete whatever was not deleted yet."""
    for kind in reversed(KINDS):
        try:
            delete(trainer.store, made, kind, trainer)
        except ResourceMissing:
            continue


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_dies_at_any_write_is_carried_through_or_deleted_nothing(kind: str) -> None:
    write = 0
    while True:
        write += 1
        trainer = Trainer()
        made = make(trainer)
        before = left(trainer.store)
        dying = DyingStore(trainer.store, lambda writes, last=write: len(writes) >= last)  # type: ignore[misc]
        try:
            delete(dying, made, kind, trainer)
            break
        except StoreUnavailable:
            pass
        buried = read_tombstone(trainer.store, getattr(made, kind)) is not None
        sweep(trainer.store)
        if not buried:
            assert [key for key in left(trainer.store) if not key.startswith("deletions/")] == before
            delete(trainer.store, made, kind, trainer)
            sweep(trainer.store)
        with pytest.raises(ResourceMissing):
            delete(trainer.store, made, kind, trainer)
        all_of(trainer, made)
        sweep(trainer.store)
        assert [key for key in left(trainer.store) if not key.startswith("deletions/")] == []
    # The entry, the tombstone and the end of what exists, at least.
    assert write > 3


def test_a_sweep_that_dies_at_any_write_is_followed_by_the_next() -> None:
    write, dying = 0, None
    while dying is None or dying.is_dead:
        write += 1
        trainer = Trainer()
        delete(trainer.store, make(trainer), "dataset", trainer)
        dying = DyingStore(trainer.store, lambda writes, last=write: len(writes) >= last)  # type: ignore[misc]
        try:
            sweep(dying)
        except StoreUnavailable:
            sweep(trainer.store)
        assert left(trainer.store) == []
    assert write > 20


def test_two_services_may_sweep_at_the_same_time(trainer: Trainer) -> None:
    delete(trainer.store, make(trainer), "dataset", trainer)
    both = Remains(trainer.store), Remains(trainer.store)
    for now_s in (0.0, LAST_SWEEP_AFTER_S):
        list(zip_longest(*(remains.sweep(now_s) for remains in both)))
    assert left(trainer.store) == []


def test_an_entry_of_a_call_that_deleted_nothing_is_forgotten_after_an_hour(trainer: Trainer) -> None:
    name = trainer.dataset(count=1)
    enter_deletion(trainer.store, name)
    remains = Remains(trainer.store)
    for now_s in (0.0, 3599.0):
        assert list(remains.sweep(now_s)) == []
    assert [key.rpartition(".")[0] for key in remains.sweep(3600.0)] == ["deletions/default.datasets.cat"]
    assert trainer.datasets.get(name).accepted


def upload(trainer: Trainer) -> None:
    name = DatasetName("default", "cat")
    kept = [trainer.datasets.keep(name, image) for image in bundled(5)]
    try:
        trainer.datasets.add(name, kept)
    except ResourceMissing:
        trainer.datasets.discard(name, kept)
        raise


def publish_one(trainer: Trainer) -> None:
    record = taken(trainer, trainer.trainings.create(request()).record)
    try:
        publish_adapter(trainer.store, record)
    except LeaseLost:
        have_swept_if_deleted(trainer.store, record)
        raise


def draw_one(trainer: Trainer) -> None:
    made = make(trainer)
    draw(trainer.store, made.adapter, made.dataset)


WRITERS: dict[str, tuple[Callable[[Trainer], object], Callable[[str], bool]]] = {
    "an upload": (upload, lambda key: "/images/" in key or key.endswith("cat/dataset.json")),
    "a new training": (lambda trainer: trainer.trainings.create(request()), lambda key: True),
    "a worker that publishes": (publish_one, lambda key: "/adapters/" in key or "/trainings/" in key),
    "an image": (draw_one, lambda key: "/made/" in key or "/generations/" in key),
}
MEANWHILE: dict[str, Callable[[Trainer], object]] = {
    "deleted": lambda trainer: None,
    "deleted and swept for the last time": lambda trainer: sweep(trainer.store),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize("writer", WRITERS)
def test_whoever_writes_into_a_dataset_that_is_deleted_meanwhile_is_told_and_leaves_nothing(
    writer: str, meanwhile: str
) -> None:
    writes, concerned = WRITERS[writer]
    write = 0
    while True:
        write += 1
        trainer = Trainer()
        trainer.dataset(count=3)

        def delete_it(trainer: Trainer = trainer) -> None:
            deletion(Trainer(trainer.store)).delete_dataset(DatasetName("default", "cat"), "")
            MEANWHILE[meanwhile](trainer)

        def due(keys: list[str], last: int = write) -> bool:
            return concerned(keys[-1]) and sum(concerned(key) for key in keys) == last

        store = InterruptedStore(trainer.store, due, delete_it)
        try:
            writes(Trainer(store))
        except (ResourceMissing, LeaseLost):
            assert store.has_happened
        else:
            if not store.has_happened:
                break
            pytest.fail(f"nobody was told at {store.writes[-1]}")
        sweep(trainer.store)
        assert left(trainer.store) == []
    assert write > 2


@pytest.mark.parametrize("writes", [1, 2])
def test_a_dataset_that_is_created_while_its_id_is_deleted_does_not_come_back(writes: int) -> None:
    trainer = Trainer()
    folder = "projects/default/incoming/shots/"
    for image in bundled(1):
        trainer.store.put(f"{folder}{image.filename}", image.body)

    def another_comes_and_goes() -> None:
        name = Trainer(trainer.store).datasets.create("", "cat", "", "").name
        deletion(Trainer(trainer.store)).delete_dataset(name, "")

    store = InterruptedStore(trainer.store, lambda keys: len(keys) == writes, another_comes_and_goes)
    with pytest.raises(ResourceExists) as caught:
        Trainer(store).datasets.create("", "cat", "", "shots")
    assert caught.value.reason == "DELETED"
    sweep(trainer.store)
    assert [key for key in left(trainer.store) if not key.startswith(folder)] == []


def test_an_image_that_is_stored_after_the_last_sweep_does_not_stay(trainer: Trainer) -> None:
    made = make(trainer)

    def delete_and_sweep() -> None:
        delete(trainer.store, made, "adapter", trainer)
        sweep(trainer.store)

    late = InterruptedStore(trainer.store, lambda keys: "/generations/" in keys[-1], delete_and_sweep)
    with pytest.raises(ResourceMissing, match="deleted meanwhile"):
        draw(late, made.adapter, made.dataset)
    assert not any("/generations/" in key for key in trainer.store.keys(""))
    assert not any(DIGEST in key for key in trainer.store.keys(f"{made.adapter.adapter_name}/"))


def test_an_image_that_comes_after_the_first_sweep_from_a_process_that_then_dies_goes_with_the_last(
    trainer: Trainer,
) -> None:
    made, remains = make(trainer), Remains(trainer.store)

    def delete_and_sweep_once() -> None:
        delete(trainer.store, made, "adapter", trainer)
        list(remains.sweep(0.0))

    class DyingAfterwards(InterruptedStore):
        def get(self, key: str) -> StoredObject:
            if self.has_happened:
                raise StoreUnavailable("dead")
            return super().get(key)

    late = DyingAfterwards(trainer.store, lambda keys: "/generations/" in keys[-1], delete_and_sweep_once)
    with pytest.raises(StoreUnavailable):
        draw(late, made.adapter, made.dataset)
    assert any("/generations/" in key for key in trainer.store.keys(""))
    list(remains.sweep(LAST_SWEEP_AFTER_S))
    assert not any("/generations/" in key for key in trainer.store.keys(""))
