"""A record in the bucket that cannot be read costs what it is of, and nothing beside it."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from service_kit import schema
from service_kit.document import UnreadableDocument
from tests.unit.trainer.made_things import ALL, PROJECT, Made, make
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.adapters import Adapters
from trainer_service.metrics import TrainerMetrics
from trainer_service.training_queue import TrainingQueue

# Half of a write that no store should show, and a release that was rolled back.
BODIES = pytest.mark.parametrize("body", [b"{", b'{"schema_version": 2}'], ids=["damaged", "newer"])
KEYS: dict[str, Callable[[Made], str]] = {
    "dataset": lambda made: schema.dataset_record(made.dataset),
    "training": lambda made: schema.training_record(made.training),
    "adapter": lambda made: schema.adapter_manifest(made.adapter),
}


def listed(trainer: Trainer) -> dict[str, list[str]]:
    """The names of a project's things."""
    lists = {"dataset": trainer.datasets, "training": trainer.trainings, "adapter": Adapters(trainer.store)}
    return {kind: [str(found.name) for found in of.page(PROJECT, ALL)[0]] for kind, of in lists.items()}


@BODIES
@pytest.mark.parametrize("kind", KEYS)
def test_lists_leave_out_what_cannot_be_read_and_say_so_in_the_log(
    trainer: Trainer, kind: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    made = make(trainer, "cat", "cat")
    make(trainer, "dog", "dog")
    before = listed(trainer)
    trainer.store.put(KEYS[kind](made), body)
    lost = str(getattr(made, kind)).partition("/versions/")[0]
    assert listed(trainer) == before | {kind: [name for name in before[kind] if not name.startswith(lost)]}
    assert len(before[kind]) == 2
    assert f"{lost} is left out of a list" in caplog.text


@BODIES
def test_asked_for_by_its_name_it_is_told_to_be_unreadable(trainer: Trainer, body: bytes) -> None:
    made = make(trainer)
    for key in KEYS.values():
        trainer.store.put(key(made), body)
    for read in (
        lambda: trainer.datasets.get(made.dataset),
        lambda: trainer.trainings.get(made.training),
        lambda: Adapters(trainer.store).get(made.adapter),
    ):
        with pytest.raises(UnreadableDocument):
            read()


@BODIES
def test_a_training_that_cannot_be_read_holds_up_none_behind_it(
    trainer: Trainer, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    trainer.dataset(count=3)
    for adapter in ("cat", "dog"):
        trainer.trainings.create(request(adapter_id=adapter))
    queue = TrainingQueue(trainer.store, lambda: datetime.now(UTC), TrainerMetrics(CollectorRegistry()))
    first, second = (free.record for free in queue.free())
    key = schema.training_record(first.name)
    good = trainer.store.get(key).body
    trainer.store.put(key, body)
    for _ in range(2):
        assert [free.record.name for free in queue.free()] == [second.name]
    assert caplog.text.count(f"{first.name} cannot be read and waits") == 1
    trainer.store.put(key, good)
    assert [free.record.name for free in queue.free()] == [first.name, second.name]
