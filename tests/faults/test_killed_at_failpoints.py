"""kill -9 of the worker and of the service at named failpoints: the training ends once, as if nothing had happened."""

import uuid

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1 import training_pb2
from tests.faults.happenings import killed_after, killed_before, killed_half_way
from tests.faults.requests_of_a_training import (
    ADAPTER_MANIFEST,
    BLOB,
    CHECKPOINT_FILE,
    CHECKPOINT_MANIFEST,
    EVENTS,
    PICTURE,
    RECORD,
    STEPPING,
    SUCCEEDED,
)
from tests.faults.stack import CONFIG, Stack
from tests.faults.store_proxy import Action, Rule, by_a_worker, by_the_service
from tests.integration.trainer_calls import CALL_S, unique

pytestmark = pytest.mark.faults

FAILPOINTS = {
    "after the lease": lambda: Rule("PUT", RECORD, killed_after),
    "mid download": lambda: Rule("GET", PICTURE, killed_before, nth=2),
    "at a step": lambda: Rule("PUT", EVENTS, killed_before, body=STEPPING),
    "mid checkpoint upload": lambda: Rule("PUT", CHECKPOINT_FILE, killed_half_way, nth=2),
    "before the checkpoint manifest": lambda: Rule("PUT", CHECKPOINT_MANIFEST, killed_before, nth=2),
    "after the checkpoint manifest": lambda: Rule("PUT", CHECKPOINT_MANIFEST, killed_after, nth=2),
    "mid adapter upload": lambda: Rule("PUT", BLOB, killed_half_way),
    "before the adapter manifest": lambda: Rule("PUT", ADAPTER_MANIFEST, killed_before),
    "after the adapter manifest": lambda: Rule("PUT", ADAPTER_MANIFEST, killed_after),
    "before the final record": lambda: Rule("PUT", RECORD, killed_before, body=SUCCEEDED),
}
CORE = {"mid checkpoint upload", "after the adapter manifest"}


@pytest.mark.parametrize(
    "failpoint", [pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in FAILPOINTS]
)
def test_a_worker_that_is_killed_at_a_failpoint_is_succeeded_by_another(stack: Stack, failpoint: str) -> None:
    rule = FAILPOINTS[failpoint]()
    rule.by = by_a_worker
    with stack.proxy.when(rule):
        training = stack.train()
        stack.check(training)
    assert rule.done == 1
    assert stack.takes(training) == 2


@pytest.mark.slow
@pytest.mark.parametrize("death", [killed_before, killed_after], ids=["before", "after"])
def test_a_service_that_is_killed_over_a_create_is_asked_again_and_makes_one_training(
    stack: Stack, death: Action
) -> None:
    request = pb.CreateTrainingRequest(
        training=training_pb2.Training(
            dataset=stack.dataset,
            adapter_id=unique("adapter"),
            config=training_pb2.TrainingConfig(sample_every=0, **CONFIG),
        ),
        request_id=str(uuid.uuid4()),
    )
    with stack.proxy.when(Rule("PUT", RECORD, death, by=by_the_service)):
        with pytest.raises(grpc.RpcError) as caught:
            stack.calls.stub.CreateTraining(request, timeout=CALL_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    stack.replace_service()
    training = stack.calls.stub.CreateTraining(request, timeout=CALL_S).training
    assert stack.calls.stub.CreateTraining(request, timeout=CALL_S).training.name == training.name
    stack.check(training)
