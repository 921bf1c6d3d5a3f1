"""A stage that really hangs, in a real worker: the answer to its request for a picture never comes."""

import re
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest

from personae.v1 import trainer_pb2_grpc, training_pb2
from tests.integration.stalling_proxy import StallingProxy, stalling_proxy
from tests.integration.trainer_calls import UNJUDGED, UNJUDGED_CONFIG, TrainerCalls
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment

State = training_pb2.Training.State
# 15 s for pictures, at least 45 s for what computes here; a call to the store gives up by itself only after 30 s.
PATIENCE = "0.05"


@pytest.fixture
def proxy(real_store: RealStore) -> Iterator[StallingProxy]:
    with stalling_proxy(real_store.endpoint) as proxy:
        yield proxy


@pytest.fixture
def service(
    proxy: StallingProxy, real_store: RealStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcess]:
    environment = service_environment(
        replace(real_store, endpoint=proxy.endpoint), PERSONAE_TRAINER_STAGE_PATIENCE=PATIENCE, **UNJUDGED
    )
    with running_service("trainer_service", environment, tmp_path_factory.mktemp("stuck") / "trainer.log") as service:
        yield service


@pytest.fixture
def calls(service: ServiceProcess) -> Iterator[TrainerCalls]:
    with grpc.insecure_channel(service.address) as channel:
        yield TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))


@pytest.mark.slow
def test_a_stuck_stage_is_named_its_worker_replaced_and_the_training_goes_on(
    proxy: StallingProxy, service: ServiceProcess, calls: TrainerCalls
) -> None:
    training = calls.train(calls.dataset(3), steps=2, **UNJUDGED_CONFIG)
    seen: list[training_pb2.TrainingEvent] = []
    for event in calls.events(training.name):
        seen.append(event)
        if event.notice.reason == "STAGE_STUCK":
            proxy.stalls = False
    (notice,) = [event.notice for event in seen if event.WhichOneof("kind") == "notice"]
    assert re.search("fetching_images gave no sign of life for [0-9]+ s", notice.message)
    states = [event.state_changed.state for event in seen if event.WhichOneof("kind") == "state_changed"]
    assert states[:4] == [State.STATE_QUEUED, State.STATE_PREPARING, State.STATE_QUEUED, State.STATE_PREPARING]
    assert seen[-1].ended.state == State.STATE_SUCCEEDED
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))


@pytest.mark.slow
def test_a_stage_that_is_stuck_with_every_worker_fails_the_training_by_name(calls: TrainerCalls) -> None:
    ended = calls.finish(calls.train(calls.dataset(3), steps=2, **UNJUDGED_CONFIG).name)
    assert (ended.state, ended.failure.reason) == (State.STATE_FAILED, "STAGE_STUCK")
    assert re.search("fetching_images gave no sign of life for [0-9]+ s", ended.failure.message)
