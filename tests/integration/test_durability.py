"""kill -9 of the service and of the object store in the middle of a training: it goes on, and ends bit-equal, once."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc, training_pb2
from service_kit.names import TrainingName
from tests.faults.invariants import events_across_outages, settled_violations_of
from tests.integration.trainer_calls import CALL_S, UNJUDGED, UNJUDGED_CONFIG, TrainerCalls
from tests.real_store import RealStore, running_store
from tests.service_process import ServiceProcess, running_service, service_environment

pytestmark = [pytest.mark.slow, pytest.mark.faults]

State = training_pb2.Training.State
CONFIG = UNJUDGED_CONFIG | {"steps": 120, "checkpoint_every": 10}


class Stack:
    """A trainer service on an object store of its own, either of which can be killed and started again."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.store: RealStore = stack.enter_context(running_store(folder))
        self.service, self.calls = self.start_service()

    def start_service(self, **settings: str) -> tuple[ServiceProcess, TrainerCalls]:
        environment = service_environment(self.store, **UNJUDGED, **settings)
        service = self._stack.enter_context(
            running_service("trainer_service", environment, self._folder / "trainer.log")
        )
        channel = self._stack.enter_context(grpc.insecure_channel(service.address))
        return service, TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with ExitStack() as stack:
        yield Stack(tmp_path_factory.mktemp("durability"), stack)


@pytest.fixture(scope="module")
def dataset(stack: Stack) -> str:
    return stack.calls.dataset(5)


@pytest.fixture(scope="module")
def uninterrupted(stack: Stack, dataset: str) -> bytes:
    """The adapter of a training that nothing happened to."""
    training = stack.calls.train(dataset, **CONFIG)
    assert stack.calls.finish(training.name).state == State.STATE_SUCCEEDED
    return stack.calls.adapter_file(training.adapter)


def first_checkpoint(calls: TrainerCalls, name: str) -> list[training_pb2.TrainingEvent]:
    """The events up to the first checkpoint."""
    seen = []
    for event in calls.events(name):
        seen.append(event)
        if event.WhichOneof("kind") == "checkpoint_saved":
            return seen
    raise AssertionError("the training ended first")


def check_ended_once(calls: TrainerCalls, store: RealStore, training: training_pb2.Training, body: bytes) -> None:
    """It succeeded, with this adapter and no other, and nothing is wrong with what it left."""
    events = events_across_outages(calls, training.name)
    assert events[-1].ended.state == State.STATE_SUCCEEDED, events[-1]
    assert calls.adapter_file(training.adapter) == body
    assert settled_violations_of(store.store, TrainingName.parse(training.name)) == []


def test_a_killed_service_is_followed_by_one_that_replays_its_events_and_ends_its_training(
    stack: Stack, dataset: str, uninterrupted: bytes
) -> None:
    training = stack.calls.train(dataset, **CONFIG)
    seen = first_checkpoint(stack.calls, training.name)
    stack.service.process.send_signal(signal.SIGKILL)
    stack.service.process.wait()
    # Without workers: what nobody carries out is not called running. The orphan sees its input close and hands over.
    idle, idle_calls = stack.start_service(PERSONAE_TRAINER_WORKERS="0")
    for event in idle_calls.events(training.name, after=len(seen)):
        if event.state_changed.state == State.STATE_QUEUED:
            break
    found = idle_calls.stub.GetTraining(pb.GetTrainingRequest(name=training.name), timeout=CALL_S).training
    assert found.state == State.STATE_QUEUED
    whole = [event for event, _ in zip(idle_calls.events(training.name), seen, strict=False)]
    assert whole == seen
    for after in range(len(seen)):
        assert next(idle_calls.events(training.name, after=after)) == seen[after]
    assert idle.stop() == 0
    stack.service, stack.calls = stack.start_service()
    check_ended_once(stack.calls, stack.store, training, uninterrupted)
    resumed = [event.notice for event in stack.calls.events(training.name) if event.notice.reason == "RESUMED"]
    assert len(resumed) == 1


def test_a_killed_object_store_costs_a_training_at_most_the_steps_since_its_checkpoint(
    stack: Stack, dataset: str, uninterrupted: bytes
) -> None:
    training = stack.calls.train(dataset, **CONFIG)
    first_checkpoint(stack.calls, training.name)
    stack.store.server.kill()
    with pytest.raises(grpc.RpcError) as caught:
        stack.calls.stub.GetTraining(pb.GetTrainingRequest(name=training.name), timeout=CALL_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    stack.store.server.start()
    check_ended_once(stack.calls, stack.store, training, uninterrupted)
