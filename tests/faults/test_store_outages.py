"""The store is away for 5, 20 and 60 s from a point in each phase of a training, which ends as if it had not been.

5 s are less than a holder's patience (15 s), 20 s more; after 60 s the lease may have been anybody's.
"""

import pytest

from tests.faults.happenings import outage
from tests.faults.requests_of_a_training import BLOB, CHECKPOINT_FILE, EVENTS, PICTURE, RECORD, STEPPING
from tests.faults.stack import Stack
from tests.faults.store_proxy import Rule, Sender, by_a_worker, by_the_service

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PHASES: dict[str, tuple[str, str, Sender, str]] = {
    "queued": ("PUT", RECORD, by_the_service, ""),
    "preparing": ("GET", PICTURE, by_a_worker, ""),
    "training": ("PUT", EVENTS, by_a_worker, STEPPING),
    "checkpointing": ("PUT", CHECKPOINT_FILE, by_a_worker, ""),
    "publishing": ("PUT", BLOB, by_a_worker, ""),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("seconds", [5, 20, 60])
def test_an_outage_of_the_store_costs_a_training_nothing_but_time(stack: Stack, phase: str, seconds: int) -> None:
    method, key, by, body = PHASES[phase]
    with stack.proxy.when(Rule(method, key, outage(seconds), by=by, body=body)) as rule:
        stack.check(stack.train())
    assert rule.done == 1
