"""The object store dies under a running trainer service: callers are told at once, and the service stays healthy."""

import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from personae.v1 import trainer_pb2 as pb
from personae.v1 import trainer_pb2_grpc
from tests.integration.trainer_calls import CALL_S, TrainerCalls, details
from tests.real_store import running_store
from tests.service_process import running_service, service_environment

pytestmark = pytest.mark.faults

AT_ONCE_S = 10


def test_a_store_that_dies_makes_calls_unavailable_and_the_service_stays_healthy(tmp_path: Path) -> None:
    with ExitStack() as stack:
        store_alone = stack.enter_context(ExitStack())
        store = store_alone.enter_context(running_store(tmp_path))
        environment = service_environment(store, PERSONAE_TRAINER_WORKERS="0")
        service = stack.enter_context(running_service("trainer_service", environment, tmp_path / "trainer.log"))
        channel = stack.enter_context(grpc.insecure_channel(service.address))
        trainer = TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))
        dataset = trainer.dataset(3)
        store_alone.close()
        asked_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            trainer.stub.GetDataset(pb.GetDatasetRequest(name=dataset), timeout=CALL_S)
        assert time.monotonic() - asked_s < AT_ONCE_S
        assert (caught.value.code(), details(caught.value)[0]) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        health = health_pb2_grpc.HealthStub(stack.enter_context(grpc.insecure_channel(service.health_address)))
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert service.stop() == 0
