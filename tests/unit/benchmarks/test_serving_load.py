"""The load of the serving benchmark: what is drawn has the distribution that its name promises."""

import statistics
from collections import Counter

import numpy as np
import pytest

from tests.benchmarks.serving_load import (
    Kind,
    arrivals_s,
    distinct,
    identical,
    planned,
    power_law,
    uniform,
    zipf,
)

SMALL, LARGE = Kind("small", 64, 64, 10), Kind("large", 128, 128, 20)
MANY = 20_000


def chance() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_arrivals_have_their_rate_and_their_burstiness(cv: float) -> None:
    times_s = arrivals_s(4.0, cv, MANY, seed=1)
    gaps_s = np.diff([0.0, *times_s])
    assert (gaps_s >= 0).all()
    assert gaps_s.mean() == pytest.approx(1 / 4.0, rel=0.1)
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.1)


def test_uniform_adapters_are_equally_likely() -> None:
    counts = Counter(uniform(8, MANY, chance()))
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 1.2 * min(counts.values())


def test_zipf_falls_with_the_power_of_the_rank() -> None:
    counts = Counter(zipf(1.5)(16, MANY, chance()))
    assert set(counts) == set(range(16))
    assert counts[0] / counts[3] == pytest.approx(4**1.5, rel=0.15)


def test_a_power_law_of_one_is_uniform_and_of_less_favours_the_first() -> None:
    flat, steep = (Counter(power_law(exponent)(10, MANY, chance())) for exponent in (1.0, 0.3))
    assert flat[0] / MANY == pytest.approx(0.1, rel=0.1)
    # The first tenth of all adapters has u^(1/0.3) < 0.1.
    assert steep[0] / MANY == pytest.approx(0.1**0.3, rel=0.1)
    assert set(flat) == set(range(10))


def test_identical_is_one_and_distinct_are_all_in_turn() -> None:
    assert set(identical(8, 20, chance())) == {0}
    assert distinct(3, 7, chance()) == [0, 1, 2, 0, 1, 2, 0]


def test_a_plan_mixes_kinds_by_their_shares_and_is_the_same_by_its_seed() -> None:
    mix = [(SMALL, 3.0), (LARGE, 1.0)]
    plan = planned(mix, 4, uniform, 4000, seed=5)
    assert statistics.fmean(request.kind is LARGE for request in plan) == pytest.approx(0.25, abs=0.03)
    assert {request.adapter for request in plan} == {0, 1, 2, 3}
    assert len({request.prompt for request in plan}) > 100
    assert plan == planned(mix, 4, uniform, 4000, seed=5)
    assert plan != planned(mix, 4, uniform, 4000, seed=6)


def test_without_adapters_the_same_pictures_are_asked_for() -> None:
    worn, bare = (planned([(SMALL, 1.0)], 4, popularity, 50, seed=5) for popularity in (uniform, None))
    assert [(request.prompt, request.seed) for request in worn] == [(request.prompt, request.seed) for request in bare]
    assert {request.adapter for request in bare} == {None}
