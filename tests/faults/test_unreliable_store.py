"""A store that is there and cannot be relied on: 503s and lost answers all along, downloads that are cut or slow."""

import pytest

from tests.faults.happenings import answer_lost, garbled, one_in, refused, slowed, truncated
from tests.faults.requests_of_a_training import PICTURE
from tests.faults.stack import Stack
from tests.faults.store_proxy import Action, Rule, by_a_worker

pytestmark = pytest.mark.faults

ALL_THE_TIME = 10**9
SHARE = 0.3


@pytest.mark.slow
@pytest.mark.parametrize("action", [refused, answer_lost], ids=["503", "answer lost"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_training_ends_on_a_store_that_fails_three_requests_in_ten(stack: Stack, action: Action, seed: int) -> None:
    unreliable = Rule(".*", "", action, times=ALL_THE_TIME, chosen=one_in(SHARE, seed), by=by_a_worker)
    training = stack.train()
    with stack.proxy.when(unreliable):
        stack.wait_for_end(training)
    stack.check(training)
    assert unreliable.done > 10


@pytest.mark.slow
@pytest.mark.parametrize("action", [truncated, slowed(20_000), garbled], ids=["truncated", "slow", "a wrong bit"])
def test_a_picture_that_arrives_badly_is_not_trained_on(stack: Stack, action: Action) -> None:
    with stack.proxy.when(Rule("GET", PICTURE, action, nth=2, by=by_a_worker)) as rule:
        stack.check(stack.train())
    assert rule.done == 1
