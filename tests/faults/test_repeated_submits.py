"""Fifty callers submit the same request at once, and answers of the store are lost: one training, told to all."""

import uuid
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1 import training_pb2
from tests.faults.happenings import answer_lost, one_in
from tests.faults.stack import CONFIG, Stack
from tests.faults.store_proxy import Rule, by_the_service
from tests.integration.trainer_calls import CALL_S, unique

pytestmark = [pytest.mark.faults, pytest.mark.slow]

CALLERS = 50
# Until the store answers; no caller of ours needed more than a few.
ATTEMPTS = 20


def submitted(stack: Stack, request: pb.CreateTrainingRequest) -> training_pb2.Training:
    """The answer to a request that is sent again while the service says UNAVAILABLE."""
    for _ in range(ATTEMPTS):
        try:
            return stack.calls.stub.CreateTraining(request, timeout=CALL_S).training
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
    raise AssertionError(f"UNAVAILABLE {ATTEMPTS} times")


def test_fifty_equal_submits_with_lost_answers_make_one_training(stack: Stack) -> None:
    request = pb.CreateTrainingRequest(
        training=training_pb2.Training(
            dataset=stack.dataset,
            adapter_id=unique("adapter"),
            config=training_pb2.TrainingConfig(sample_every=0, **CONFIG),
        ),
        request_id=str(uuid.uuid4()),
    )
    unreliable = Rule("PUT", "", answer_lost, times=10**9, chosen=one_in(0.3, seed=1), by=by_the_service)
    before = stack.trainings()
    with stack.proxy.when(unreliable), ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(lambda _: submitted(stack, request), range(CALLERS)))
    assert unreliable.done > 10
    assert {(answer.name, answer.adapter, answer.create_time.ToNanoseconds()) for answer in answers} == {
        (answers[0].name, answers[0].adapter, answers[0].create_time.ToNanoseconds())
    }
    assert stack.trainings() - before == {answers[0].name}
    stack.check(answers[0])
