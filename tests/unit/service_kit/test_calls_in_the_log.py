"""The line that a call leaves in the log, of calls over a loopback port: which resources it was about."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from personae.v1 import adapter_pb2, dataset_pb2, trainer_pb2, trainer_pb2_grpc
from service_kit.error_status import ErrorInterceptor
from service_kit.errors import ResourceMissing
from service_kit.logs import FIELDS
from service_kit.metrics import ServiceMetrics
from service_kit.naming import NamingInterceptor
from service_kit.observing import ObservingInterceptor

_PATIENCE_S = 20.0
_DATASET, _VERSION = "projects/mine/datasets/cats", "projects/mine/adapters/cat/versions/3"
Scenario = Callable[[trainer_pb2_grpc.TrainerServiceStub], Awaitable[Any]]


class _Servicer(trainer_pb2_grpc.TrainerServiceServicer):
    async def GetAdapter(self, request: Any, context: Any) -> adapter_pb2.Adapter:
        raise ResourceMissing("Adapter", request.name)

    async def ListAdapters(self, request: Any, context: Any) -> trainer_pb2.ListAdaptersResponse:
        return trainer_pb2.ListAdaptersResponse()

    async def UploadImages(self, request_iterator: Any, context: Any) -> trainer_pb2.UploadImagesResponse:
        names = [message.header.dataset async for message in request_iterator]
        return trainer_pb2.UploadImagesResponse(dataset=dataset_pb2.Dataset(name=names[0]))


def _line_of(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    """What the log has of the one call that the scenario makes."""

    async def run() -> None:
        observing = ObservingInterceptor(ServiceMetrics("trainer"), None)
        server = grpc.aio.server(interceptors=[observing, ErrorInterceptor(), NamingInterceptor()])
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(_Servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await scenario(trainer_pb2_grpc.TrainerServiceStub(channel))
        await server.stop(_PATIENCE_S)

    with caplog.at_level(logging.INFO, "service_kit.observing"):
        asyncio.run(asyncio.wait_for(run(), _PATIENCE_S))
    (line,) = (getattr(record, FIELDS) for record in caplog.records if record.name == "service_kit.observing")
    return line


def test_a_refused_call_says_what_it_was_about(caplog: pytest.LogCaptureFixture) -> None:
    async def ask(stub: trainer_pb2_grpc.TrainerServiceStub) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.GetAdapter(trainer_pb2.GetAdapterRequest(name=_VERSION))

    line = _line_of(ask, caplog)
    assert (line["project"], line["adapter"], line["code"]) == ("mine", _VERSION, "NOT_FOUND")


def test_an_upload_says_its_dataset_which_its_first_message_names(caplog: pytest.LogCaptureFixture) -> None:
    async def messages() -> AsyncIterator[trainer_pb2.UploadImagesRequest]:
        yield trainer_pb2.UploadImagesRequest(header=trainer_pb2.UploadImagesRequest.Header(dataset=_DATASET))
        yield trainer_pb2.UploadImagesRequest(chunk=b"not a name")

    line = _line_of(lambda stub: stub.UploadImages(messages()), caplog)
    assert (line["project"], line["dataset"], line["code"]) == ("mine", _DATASET, "OK")


def test_what_is_no_name_is_not_written_down(caplog: pytest.LogCaptureFixture) -> None:
    line = _line_of(lambda stub: stub.ListAdapters(trainer_pb2.ListAdaptersRequest(parent="my secret")), caplog)
    assert not {"project", "adapter"} & set(line)
