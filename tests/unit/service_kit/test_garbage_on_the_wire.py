"""Bytes that are no message: what every kind of rpc answers, and that the server goes on serving."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_status import rpc_status

from personae.v1 import trainer_pb2 as pb
from service_kit.error_status import ErrorInterceptor
from service_kit.lingering import LingerInterceptor

_PATIENCE_S = 30.0
_GOOD = pb.GetDatasetRequest(name="projects/p/datasets/d").SerializeToString()
_GARBAGE = {
    "a field that never ends": b"\x0a\xff\xff\xff\xff\x0f",
    "a group that is not opened": b"\x0c",
    "invalid UTF-8": b"\x0a\x02\xc3\x28",
    "a lone surrogate": b"\x0a\x03\xed\xa0\x80",
    "half a varint": b"\x08\xff",
    "field number 0": b"\x00\x00",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00",
}


async def _unary(request: pb.GetDatasetRequest, context: Any) -> pb.GetDatasetRequest:
    return request


async def _stream(request: pb.GetDatasetRequest, context: Any) -> AsyncIterator[pb.GetDatasetRequest]:
    yield request


async def _streamed(request: AsyncIterator[pb.GetDatasetRequest], context: Any) -> pb.GetDatasetRequest:
    names = [message.name async for message in request]
    return pb.GetDatasetRequest(name=" ".join(names))


async def _both(request: AsyncIterator[pb.GetDatasetRequest], context: Any) -> AsyncIterator[pb.GetDatasetRequest]:
    async for message in request:
        yield message


_CODECS = (pb.GetDatasetRequest.FromString, pb.GetDatasetRequest.SerializeToString)
_HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(_unary, *_CODECS),
    "Stream": grpc.unary_stream_rpc_method_handler(_stream, *_CODECS),
    "Streamed": grpc.stream_unary_rpc_method_handler(_streamed, *_CODECS),
    "Both": grpc.stream_stream_rpc_method_handler(_both, *_CODECS),
}


async def _answers(channel: grpc.aio.Channel, kind: str, *bodies: bytes) -> list[Any]:
    """What one call of a kind of rpc answers to these bytes."""
    path = f"/test.Echo/{kind}"

    async def sent() -> AsyncIterator[bytes]:
        for body in bodies:
            yield body

    match kind:
        case "Unary":
            return [await channel.unary_unary(path)(bodies[0], timeout=_PATIENCE_S)]
        case "Stream":
            return [answer async for answer in channel.unary_stream(path)(bodies[0], timeout=_PATIENCE_S)]
        case "Streamed":
            return [await channel.stream_unary(path)(sent(), timeout=_PATIENCE_S)]
        case _:
            # By turns, since whoever still sends may miss the refusal (`service_kit/lingering.py`).
            call, answers = channel.stream_stream(path)(timeout=_PATIENCE_S), []
            for body in bodies:
                await call.write(body)
                answers.append(await call.read())
            await call.done_writing()
            return answers


def _refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, int]:
    """Code, reason and number of violations."""
    status = rpc_status.from_call(error)
    assert status is not None
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad_request)
    return error.code(), info.reason, len(bad_request.field_violations)


def test_garbage_and_invalid_utf_8_are_invalid_arguments_in_every_kind_of_call() -> None:
    async def run() -> None:
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), LingerInterceptor()])
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", _HANDLERS),))
        health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for kind in _HANDLERS:
                for name, garbage in _GARBAGE.items():
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await _answers(channel, kind, garbage)
                    expected = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", 1)
                    assert _refusal(caught.value) == expected, (kind, name)
                assert await _answers(channel, kind, _GOOD) == [_GOOD]
            for kind in ("Streamed", "Both"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await _answers(channel, kind, _GOOD, _GARBAGE["invalid UTF-8"], _GOOD)
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/test.Echo/NoSuchMethod")(_GOOD, timeout=_PATIENCE_S)
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            # gRPC's own: a message beyond 4 MiB and metadata beyond 16 KB reach no handler.
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _answers(channel, "Unary", bytes(4 * 1024 * 1024 + 1))
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/test.Echo/Unary")(
                    _GOOD, metadata=(("x-filler", "x" * 20_000),), timeout=_PATIENCE_S
                )
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await server.stop(0)

    asyncio.run(run())
