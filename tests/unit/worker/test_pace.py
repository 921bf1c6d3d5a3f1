"""When a stage will be finished, from step times as trainings have them: noise, slow first steps, pauses."""

import random

import pytest

from trainer_service.worker.pace import Pace

TICK_S = 0.25
STEPS = 400


def estimates_of_the_whole(step_s: list[float]) -> tuple[list[float], float]:
    """What Pace says the whole stage takes, after each report (at most one in a quarter second), and what it took."""
    pace, now_s, reported_s = Pace(), 0.0, 0.0
    estimates = []
    for step, duration_s in enumerate(step_s, start=1):
        now_s += duration_s
        if now_s - reported_s >= TICK_S or step == len(step_s):
            reported_s = now_s
            pace.mark(now_s, step)
            left_s = pace.time_left_s(len(step_s))
            # A stage of which nothing is known yet has no estimate, which is no error in it.
            estimates.append(float("nan") if left_s is None else now_s + left_s)
    return estimates, now_s


def noisy(mean_s: float, seed: int) -> list[float]:
    """Step times that scatter by a sixth, as on a machine that others use too."""
    draws = random.Random(seed)
    return [mean_s * max(0.3, draws.gauss(1.0, 1 / 6)) for _ in range(STEPS)]


def slow_start(step_s: list[float]) -> list[float]:
    """The first step compiles and takes as long as twenty, the next two as long as five."""
    return [step_s[0] * 20, step_s[1] * 5, step_s[2] * 5, *step_s[3:]]


def with_pauses(step_s: list[float], every: int, steps_long: float) -> list[float]:
    """After every so many steps a checkpoint, a validation or samples, as long as that many steps."""
    mean_s = sum(step_s) / len(step_s)
    return [
        duration + (mean_s * steps_long if step % every == 0 else 0.0) for step, duration in enumerate(step_s, start=1)
    ]


SHAPES = {
    "even": lambda step_s: step_s,
    "slow start": slow_start,
    "short pauses": lambda step_s: with_pauses(step_s, every=25, steps_long=3),
    "long pauses": lambda step_s: with_pauses(step_s, every=STEPS // 8, steps_long=10),
    "all of it": lambda step_s: with_pauses(slow_start(step_s), every=25, steps_long=3),
}


@pytest.mark.parametrize("mean_s", [0.03, 0.5, 4.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_after_a_fifth_of_a_stage_its_length_is_known_to_a_tenth(shape: str, mean_s: float) -> None:
    for seed in range(20):
        estimates, took_s = estimates_of_the_whole(SHAPES[shape](noisy(mean_s, seed)))
        settled = estimates[len(estimates) // 5 :]
        worst = max(abs(estimate - took_s) / took_s for estimate in settled)
        assert worst <= 0.1, f"seed {seed}: off by {worst:.0%}"


def test_a_pause_counts_as_time_and_not_as_speed() -> None:
    pace = Pace()
    for second in range(21):
        pace.mark(float(second), second)
    assert pace.time_left_s(40) == pytest.approx(20.0)
    pace.mark(40.0, 21)
    for second in range(41, 51):
        pace.mark(float(second), second - 19)
    assert pace.units_per_second == pytest.approx(1.0)
    # The first 7 units are left out: 24 took 43 s, the pause of 20 s among them.
    assert pace.time_left_s(40) == pytest.approx(9 * 43 / 24)


def test_nothing_is_said_of_a_stage_before_two_counts_and_a_repeated_count_changes_nothing() -> None:
    pace = Pace()
    assert (pace.units_per_second, pace.time_left_s(10)) == (0.0, None)
    pace.mark(1.0, 0)
    pace.mark(2.0, 0)
    assert (pace.units_per_second, pace.time_left_s(10)) == (0.0, None)
    pace.mark(3.0, 4)
    assert (pace.units_per_second, pace.time_left_s(10)) == (2.0, 3.0)


def test_a_resumed_stage_counts_from_where_it_resumed() -> None:
    pace = Pace()
    for second in range(10):
        pace.mark(float(second), 100 + second)
    assert pace.time_left_s(200) == pytest.approx(91.0)


def test_a_stage_that_becomes_slower_is_believed() -> None:
    pace = Pace()
    for count in range(100):
        pace.mark(float(count if count < 10 else 10 + 2 * (count - 10)), count)
    assert pace.time_left_s(199) == pytest.approx(200.0)


def test_a_lower_count_begins_anew() -> None:
    pace = Pace()
    for second in range(10):
        pace.mark(float(second), second)
    pace.mark(10.0, 0)
    assert pace.time_left_s(4) is None
    pace.mark(13.0, 1)
    assert pace.time_left_s(4) == pytest.approx(9.0)
