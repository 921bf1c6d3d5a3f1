"""A holder is frozen with a write under way, and succeeded; then the write arrives: the store refuses it."""

import os
import signal
from http import HTTPStatus

import pytest

from tests.faults.requests_of_a_training import (
    ADAPTER_MANIFEST,
    CHECKPOINT_POINTER,
    EVENTS,
    RECORD,
    STEPPING,
    SUCCEEDED,
)
from tests.faults.stack import Stack
from tests.faults.store_proxy import Exchange, Rule, by_a_worker

pytestmark = [pytest.mark.faults, pytest.mark.slow]

WRITES = {
    "an event": lambda take: Rule("PUT", EVENTS, take, body=STEPPING),
    "the first pointer to a checkpoint": lambda take: Rule("PUT", CHECKPOINT_POINTER, take),
    "a later pointer to a checkpoint": lambda take: Rule("PUT", CHECKPOINT_POINTER, take, nth=2),
    "the adapter's manifest": lambda take: Rule("PUT", ADAPTER_MANIFEST, take),
    "the final record": lambda take: Rule("PUT", RECORD, take, body=SUCCEEDED),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_arrives_after_its_writer_was_succeeded_is_refused(stack: Stack, write: str) -> None:
    late: list[Exchange] = []

    def freeze(exchange: Exchange) -> None:
        # The service kills it when its lease has stood still for 30 s.
        os.kill(exchange.requester, signal.SIGSTOP)
        late.append(exchange)

    rule = WRITES[write](freeze)
    rule.by = by_a_worker
    with stack.proxy.when(rule):
        training = stack.train()
        stack.check(training)
    assert stack.takes(training) == 2
    before = stack.stored(training)
    assert late[0].forward().status == HTTPStatus.PRECONDITION_FAILED
    assert stack.stored(training) == before
