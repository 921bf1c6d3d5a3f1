"""A worker dies at one of its writes: the next ends the training with the same adapter, bit by bit, and only once."""

from collections.abc import Callable

import pytest

from base_models.families.stable_diffusion import StableDiffusion
from service_kit import schema
from service_kit.adapter_manifest import read_manifest
from service_kit.memory_store import MemoryStore
from tests.unit.trainer.trainer_fakes import Trainer, request
from tests.unit.worker.dying_worker import DyingStore, carry_out
from trainer_service.events import Ended, Event
from trainer_service.journal import Journal
from trainer_service.lifecycle import State
from trainer_service.training_record import TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.exit_code import ExitCode

pytestmark = pytest.mark.faults

CONFIG = {"steps": 2, "checkpoint_every": 1, "rank": 2, "batch_size": 1, "seed": 5, "resolution": 64, "sample_every": 0}


def new_training() -> tuple[MemoryStore, TrainingRecord]:
    trainer = Trainer()
    trainer.dataset(count=3)
    return trainer.store, trainer.trainings.create(request(config=CONFIG)).record


def adapter_body(store: MemoryStore, record: TrainingRecord) -> bytes:
    manifest = read_manifest(store, record.adapter)
    assert manifest is not None
    return store.get(schema.adapter_blob(record.adapter, manifest.artifacts[0].digest)).body


def events(store: MemoryStore, record: TrainingRecord) -> list[Event]:
    journal = Journal(store, record.name)
    found: list[Event] = []
    while (segment := journal.segment_with(len(found) + 1)) is not None:
        found.extend(segment.events)
    return found


def published(writes: list[str]) -> bool:
    return any("/adapters/" in key and key.endswith("/manifest.json") for key in writes)


slow = pytest.mark.slow
DEATHS: dict[str, Callable[[list[str]], bool]] = {
    "taking it": lambda writes: True,
    "its first event": lambda writes: "/events/" in writes[-1],
    "the first checkpoint's last file": lambda writes: writes[-1].endswith("000001-00000001/manifest.json"),
    "the pointer to the first checkpoint": lambda writes: writes[-1].endswith("/latest.json"),
    "the record after the first checkpoint": lambda writes: (
        writes[-1].endswith("/training.json") and any(key.endswith("/latest.json") for key in writes)
    ),
    "the pointer to the last checkpoint": lambda writes: (
        writes[-1].endswith("/latest.json") and sum(key.endswith("/latest.json") for key in writes) == 2
    ),
    "the adapter's file": lambda writes: "/blobs/" in writes[-1],
    "the adapter's manifest": published,
    "the last event": lambda writes: "/events/" in writes[-1] and published(writes),
    "the last record": lambda writes: writes[-1].endswith("/training.json") and published(writes),
    "the queue entry": lambda writes: writes[-1].startswith("queue/"),
}
QUICK = {"the pointer to the first checkpoint", "the adapter's manifest"}


@pytest.fixture(scope="module")
def uninterrupted(base: StableDiffusion) -> bytes:
    """The adapter of a training that nothing happened to."""
    store, record = new_training()
    assert carry_out(store, record.name, base, "alone") is ExitCode.DONE
    return adapter_body(store, record)


@pytest.mark.parametrize("death", [pytest.param(name, marks=() if name in QUICK else slow) for name in DEATHS])
def test_a_worker_that_dies_at_a_write_is_succeeded_by_one_that_makes_the_same_adapter(
    base: StableDiffusion, uninterrupted: bytes, death: str
) -> None:
    store, record = new_training()
    dying = DyingStore(store, DEATHS[death])
    carry_out(dying, record.name, base, "first")
    assert dying.is_dead
    if death != "the queue entry":
        assert carry_out(store, record.name, base, "second") is ExitCode.DONE
    final, _ = TrainingStore(store).read(record.name)
    assert (final.state, final.completed_steps) == (State.SUCCEEDED, CONFIG["steps"])
    assert adapter_body(store, record) == uninterrupted
    log = events(store, record)
    assert [event.sequence for event in log] == list(range(1, len(log) + 1))
    assert [isinstance(event.what, Ended) for event in log] == [False] * (len(log) - 1) + [True]
    manifests = [key for key in store.keys("projects/default/adapters/") if key.endswith("/manifest.json")]
    assert manifests == [schema.adapter_manifest(record.adapter)]
