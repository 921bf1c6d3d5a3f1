"""What a report reads from events: one way through the training, however often it was interrupted."""

import math

import pytest

from trainer_service.events import Happening, Notice, Progress, SampleReady, StageStarted, Validated
from trainer_service.lifecycle import Stage
from trainer_service.training_report.course import Point, course, shown_steps


def step(completed: int, loss: float | None) -> Progress:
    return Progress(stage=Stage.STEPPING, completed=completed, total=9, units_per_second=1, time_left_s=None, loss=loss)


def validated(step: int, loss: float) -> Validated:
    return Validated(step=step, loss=loss, best=False)


def sample(step: int, seed: int, prompt: str = "x") -> SampleReady:
    artifact_id = f"samples/{step:06d}-{seed}.png"
    return SampleReady(step=step, prompt=prompt, seed=seed, artifact_id=artifact_id, memorisation=None)


def test_steps_that_were_done_again_count_once_and_as_they_were_done_last() -> None:
    resumed = Notice(reason="RESUMED", message="goes on from the checkpoint of step 4")
    first: list[Happening] = [step(2, 0.5), validated(3, 0.4), sample(3, 0), step(4, 0.3), sample(6, 0), sample(6, 1)]
    first += [step(6, 0.9), validated(6, 0.9), step(8, 0.9)]
    again: list[Happening] = [resumed, step(5, 0.2), sample(6, 0, "again"), validated(6, 0.1), step(7, 0.1)]
    told = course([*first, *again])
    assert told.losses == (Point(2, 0.5), Point(4, 0.3), Point(5, 0.2), Point(7, 0.1))
    assert told.validations == (Point(3, 0.4), Point(6, 0.1))
    assert [(drawn.step, drawn.seed, drawn.prompt) for drawn in told.samples] == [(3, 0, "x"), (6, 0, "again")]
    assert told.notices == (resumed,)


def test_what_is_no_number_is_no_point_of_a_curve() -> None:
    without = [step(1, None), step(2, math.nan), validated(3, math.inf), StageStarted(stage=Stage.PROVING)]
    assert course(without) == course([])


@pytest.mark.parametrize(
    ("steps", "chosen", "shown", "closest"),
    [
        ([10, 20, 30], 24, [10, 20, 30], 20),
        ([10], 5000, [10], 10),
        (list(range(10, 1010, 10)), 511, [10, 260, 510, 750, 1000], 510),
        (list(range(10, 1010, 10)), 1000, [10, 260, 500, 750, 1000], 1000),
    ],
)
def test_of_many_samples_the_first_the_last_and_the_closest_are_shown(
    steps: list[int], chosen: int, shown: list[int], closest: int
) -> None:
    found, nearest = shown_steps(steps, chosen, 6)
    assert nearest == closest
    assert {steps[0], steps[-1], closest} <= set(found)
    assert found == sorted(set(found))
    assert len(found) <= 6
    if len(steps) <= 6:
        assert found == shown
