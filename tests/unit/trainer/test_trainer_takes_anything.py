"""Any message at all, to every rpc of TrainerService: it is answered, or refused with a reason, never a defect."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personae.v1 import trainer_pb2 as pb
from personae.v1.trainer_pb2_grpc import add_TrainerServiceServicer_to_server
from service_kit.error_status import ErrorInterceptor
from service_kit.lingering import LingerInterceptor
from tests.fuzzed_service import FuzzedService, examples, rpcs
from tests.unit.trainer.good_calls import DATASET, FRESH, HERO, PROJECT, good_calls
from tests.unit.trainer.served_trainer import trainer_servicer
from tests.unit.trainer.trainer_fakes import Trainer

SERVICE = pb.DESCRIPTOR.services_by_name["TrainerService"]
TEXTS = [
    "cat",
    "hero",
    "toon-64",
    "adapter",
    PROJECT,
    DATASET,
    f"{PROJECT}/datasets/none",
    f"{PROJECT}/trainings/none",
    f"{PROJECT}/adapters/hero",
    HERO,
    f"{PROJECT}/adapters/hero/versions/9",
    "b3c1b2a0-5b1e-4a52-9f3f-0b8d1f0e7a11",
]


@pytest.fixture(scope="module")
def service() -> Iterator[FuzzedService]:
    trainer = Trainer()
    good = good_calls(trainer)

    @asynccontextmanager
    async def serving() -> AsyncIterator[grpc.aio.Channel]:
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), LingerInterceptor()])
        add_TrainerServiceServicer_to_server(trainer_servicer(trainer), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        await server.stop(0)

    made = FuzzedService(SERVICE, serving, [*TEXTS, good["GetTraining"][0].name], good)
    yield made
    made.close()


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
def test_a_good_call_of_every_rpc_succeeds(service: FuzzedService, rpc: str) -> None:
    assert set(service.answers_to_good(rpc)) == {grpc.StatusCode.OK}


@pytest.mark.parametrize("rpc", rpcs(SERVICE))
@examples(FRESH)
@given(data=st.data())
def test_every_rpc_answers_or_refuses_whatever_comes(service: FuzzedService, rpc: str, data: st.DataObject) -> None:
    service.answer(rpc, data.draw(service.calls(rpc)))


# What needs nothing that may have been deleted.
@pytest.mark.parametrize("rpc", ["CreateDataset", "ListDatasets", "ListTrainings", "ImportAdapter"])
def test_afterwards_good_calls_succeed(service: FuzzedService, rpc: str) -> None:
    assert set(service.answers_to_good(rpc)) == {grpc.StatusCode.OK}
