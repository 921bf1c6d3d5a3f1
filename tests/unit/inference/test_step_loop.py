"""What the step loop does when rows fail, leave or do not fit, with a denoiser that fails when it is told to."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules
from inference_service.denoising.rows import Job, Row
from inference_service.denoising.step_loop import StepLoop
from inference_service.denoising.trajectories import trajectory
from service_kit.errors import TryLater
from tests.random_adapter import ATTENTION, random_adapter
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import StepRows

STEPS = 4
CONFIG = {"beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


class Bench:
    """A loop whose steps are counted and may fail."""

    def __init__(self, limit: int = 8) -> None:
        self.passes: list[list[int]] = []
        self.finished: list[int] = []
        self.previews: list[tuple[int, int]] = []
        self.fails: Callable[[Sequence[Row]], Exception | None] = lambda rows: None
        self.loop = StepLoop(
            self._advance,
            finished=lambda row: self.finished.append(row.task.seed),
            draw=lambda row: self.previews.append((row.task.seed, row.place)),
            limit=lambda group: limit,
            slots=8,
        )

    def add(self, *seeds: int, size: int = 8, preview_every: int = 0) -> tuple[Job, list[Any]]:
        told: list[Any] = []
        job = Job(quick_request(*seeds, steps=STEPS, preview_every=preview_every), (), told.append)
        path = trajectory("ddim", CONFIG, {"num_inference_steps": STEPS})
        conditioning = {"prompt_BTD": torch.zeros(1, 1, 1)}
        latents = torch.zeros(4, size, size)
        self.loop.add([Row(job, task, path, conditioning, conditioning, latents, None) for task in job.request.tasks])
        return job, told

    def run(self) -> None:
        while self.loop.step():
            pass

    def _advance(self, rows: Sequence[Row]) -> None:
        error = self.fails(rows)
        if error is not None:
            raise error
        self.passes.append([row.task.seed for row in rows])
        for row in rows:
            row.place += 1


def test_out_of_memory_halves_the_batch_and_every_image_is_finished() -> None:
    bench = Bench()
    bench.fails = lambda rows: torch.OutOfMemoryError("no memory") if len(rows) > 3 else None
    bench.add(*range(8))
    bench.run()
    assert sorted(bench.finished) == list(range(8))
    assert max(map(len, bench.passes)) <= 3
    # The batch stays small: memory is not run out of again at every step.
    assert len(bench.passes) == 4 * STEPS


def test_batches_of_another_size_stay_as_large_as_they_were() -> None:
    bench = Bench()
    bench.fails = lambda rows: (
        torch.OutOfMemoryError("no memory") if rows[0].latents_CHW.shape[1] == 16 and len(rows) > 2 else None
    )
    bench.add(*range(8), size=16)
    bench.add(*range(8, 16), size=8)
    bench.run()
    assert sorted(bench.finished) == list(range(16))
    assert max(map(len, bench.passes)) == 8


def test_a_request_of_which_one_image_is_too_large_is_told_so_and_others_go_on() -> None:
    bench = Bench()
    bench.fails = lambda rows: (
        torch.OutOfMemoryError("no memory") if any(row.latents_CHW.shape[1] == 16 for row in rows) else None
    )
    _, told = bench.add(1, size=16)
    bench.add(2)
    bench.run()
    assert bench.finished == [2]
    assert isinstance(told[-1], TryLater)
    assert told[-1].reason == "OUT_OF_MEMORY"


def test_a_row_that_fails_fails_its_own_request_alone() -> None:
    bench = Bench()
    bench.fails = lambda rows: ValueError("bad row") if any(row.task.seed == 5 for row in rows) else None
    jobs = {seed: bench.add(seed) for seed in range(8)}
    bench.run()
    assert sorted(bench.finished) == [0, 1, 2, 3, 4, 6, 7]
    assert isinstance(jobs[5][1][-1], ValueError)
    for seed in (0, 7):
        assert not any(isinstance(event, Exception) for event in jobs[seed][1])


def test_what_fails_after_a_step_ends_its_requests_and_takes_no_row_twice() -> None:
    bench = Bench()
    jobs = [bench.add(seed) for seed in range(2)]
    bench.loop.step()
    bench.finished = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        bench.run()
    assert len(bench.passes) == STEPS
    bench.loop.fail_all(ValueError("a defect"))
    assert all(isinstance(told[-1], ValueError) for _, told in jobs)
    assert not bench.loop.step()


def test_a_request_that_is_given_up_frees_its_rows_within_a_step() -> None:
    bench = Bench(limit=2)
    first, _ = bench.add(1, 2)
    bench.add(3, 4)
    bench.loop.step()
    assert bench.passes == [[1, 2]]
    first.is_abandoned = True
    bench.run()
    assert bench.passes == [[1, 2], *[[3, 4]] * STEPS]
    assert bench.finished == [3, 4]


def test_previews_are_due_after_every_so_manyth_step_but_the_last() -> None:
    bench = Bench()
    bench.add(1, 2, preview_every=2)
    bench.add(3)
    bench.run()
    assert bench.previews == [(1, 2), (2, 2)]


@pytest.fixture(scope="module")
def steps(toon: BaseModelEntry) -> Iterator[StepRows]:
    rows = StepRows(load_base_model(toon, torch.device("cpu")), slots=2)
    yield rows
    rows.close()


def test_more_adapters_than_slots_run_in_turns_and_all_are_finished(steps: StepRows, plain_pipeline: Any) -> None:
    modules = adaptable_modules(plain_pipeline)
    bodies = [random_adapter(modules, {"unet": ATTENTION}, seed) for seed in range(5)]
    for seed, body in enumerate(bodies):
        steps.add(quick_request(seed, steps=2, width=32, height=32), [(body, 1.0)])
    passes = steps.loop.counters.forwards
    assert len(steps.run()) == 5
    # Two adapters at a time: three groups of two steps each.
    assert steps.loop.counters.forwards - passes == 6
    assert steps.loop.counters.adapters == 10
