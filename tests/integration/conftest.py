"""A real TrainerService process with one warm worker, on a real object store."""

from collections.abc import Iterator

import grpc
import pytest

from personae.v1 import trainer_pb2_grpc
from tests.integration.trainer_calls import TrainerCalls
from tests.real_store import RealStore
from tests.service_process import ServiceProcess, running_service, service_environment


@pytest.fixture(scope="module")
def trainer_process(real_store: RealStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    log = tmp_path_factory.mktemp("trainer") / "trainer.log"
    with running_service("trainer_service", service_environment(real_store), log) as service:
        yield service


@pytest.fixture(scope="module")
def trainer(trainer_process: ServiceProcess) -> Iterator[TrainerCalls]:
    with grpc.insecure_channel(trainer_process.address) as channel:
        yield TrainerCalls(trainer_pb2_grpc.TrainerServiceStub(channel))
