"""The speed that is measured while there is work."""

import pytest

from inference_service.throughput import Throughput
from tests.unit.inference.fake_serving import Clock


def test_nothing_is_known_before_a_second_of_work() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    assert throughput.passes_per_s is None
    throughput.advance(0)
    clock.now_s = 0.9
    throughput.advance(9)
    assert throughput.passes_per_s is None
    clock.now_s = 1.1
    throughput.advance(2)
    assert throughput.passes_per_s == pytest.approx(10.0, rel=0.01)


def test_time_without_work_does_not_count() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    for _ in range(5):
        throughput.advance(0)
        clock.now_s += 1.0
        throughput.advance(10)
        throughput.rest()
        clock.now_s += 7.0
    assert throughput.passes_per_s == pytest.approx(10.0)


def test_a_second_without_anything_done_is_no_speed() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    throughput.advance(0)
    clock.now_s = 5.0
    throughput.advance(0)
    assert throughput.passes_per_s is None


def test_the_last_minutes_count_most_and_what_is_long_past_not_at_all() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    throughput.advance(0)
    for passes in [10] * 300 + [20] * 120:
        clock.now_s += 1.0
        throughput.advance(passes)
    throughput.rest()
    speed = throughput.passes_per_s
    assert speed == pytest.approx(20.0, rel=0.1)
    clock.now_s += 60.0
    assert throughput.passes_per_s == pytest.approx(speed)
    clock.now_s += 600.0
    assert throughput.passes_per_s is None
