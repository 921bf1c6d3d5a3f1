"""The wall clock jumps while a training runs: times in its records jump with it, and nothing else is different."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from base_models.families.stable_diffusion import StableDiffusion
from tests.faults.invariants import stored_events, violations_of
from tests.unit.trainer.trainer_fakes import Trainer, request
from tests.unit.worker.dying_worker import DyingStore, carry_out
from trainer_service.worker.exit_code import ExitCode

pytestmark = pytest.mark.faults

CONFIG = {"steps": 2, "checkpoint_every": 1, "rank": 2, "batch_size": 1, "seed": 5, "resolution": 64, "sample_every": 0}


def test_a_clock_that_jumps_by_an_hour_to_and_fro_disturbs_no_training(base: StableDiffusion) -> None:
    trainer = Trainer()
    trainer.dataset(count=3)
    record = trainer.trainings.create(request(config=CONFIG)).record
    jumps = itertools.cycle([0, 1, -1])

    def jumping() -> datetime:
        return datetime.now(UTC) + timedelta(hours=next(jumps))

    dying = DyingStore(trainer.store, lambda writes: writes[-1].endswith("/latest.json"))
    carry_out(dying, record.name, base, "first", jumping)
    assert dying.is_dead
    assert carry_out(trainer.store, record.name, base, "second", jumping) is ExitCode.DONE
    assert violations_of(trainer.store, record.name) == []
    times = [event.time for event in stored_events(trainer.store, record.name)]
    assert times != sorted(times)
