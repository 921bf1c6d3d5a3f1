"""A training that is deleted while a worker has it: the worker leaves, and what it wrote too late goes too."""

import pytest

from base_models.families.stable_diffusion import StableDiffusion
from service_kit import schema
from tests.interrupted_store import InterruptedStore
from tests.unit.trainer.made_things import left, sweep
from tests.unit.trainer.trainer_fakes import Trainer, request
from tests.unit.worker.dying_worker import carry_out
from trainer_service.deletion import Deletion
from trainer_service.worker.exit_code import ExitCode

CONFIG = {"steps": 2, "checkpoint_every": 1, "rank": 2, "batch_size": 1, "seed": 5, "resolution": 64, "sample_every": 0}


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "frozen_before", [pytest.param("/events/", marks=slow), "/blobs/", pytest.param("/manifest.json", marks=slow)]
)
def test_a_worker_that_was_frozen_until_after_the_last_sweep_leaves_nothing(
    base: StableDiffusion, frozen_before: str
) -> None:
    trainer = Trainer()
    dataset = trainer.dataset(count=3)
    record = trainer.trainings.create(request(config=CONFIG)).record

    def delete_and_sweep() -> None:
        Deletion(trainer.store, trainer.clock).delete_dataset(dataset, "")
        sweep(trainer.store)
        assert left(trainer.store) == []

    def concerned(writes: list[str]) -> bool:
        return frozen_before in writes[-1] and "/checkpoints/" not in writes[-1]

    store = InterruptedStore(trainer.store, concerned, delete_and_sweep)
    assert carry_out(store, record.name, base, "frozen") is ExitCode.TRY_AGAIN
    assert store.has_happened
    sweep(trainer.store)
    # Class pictures are the base model's own, and belong to no dataset.
    assert [key for key in left(trainer.store) if not key.startswith(("class-images/", "speeds/"))] == []
    assert schema.tombstone(record.name) in list(trainer.store.keys(""))
