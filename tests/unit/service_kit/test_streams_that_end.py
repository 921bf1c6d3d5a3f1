"""Streams that a stopping service ends, and streams that nobody reads, over a loopback port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_status import rpc_status

from service_kit.error_status import ErrorInterceptor
from service_kit.streams import DrainInterceptor, UnreadInterceptor

_PATIENCE_S = 20.0
_UNREAD_S = 0.3
# More than a connection holds.
_LARGE = b"x" * 4_000_000


class _Streams:
    """`Idle` says one thing and waits, `Large` never ends, `Slow` takes longer than a reader may, `Short` ends."""

    def __init__(self) -> None:
        self.freed = asyncio.Event()

    async def _idle(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            self.freed.set()

    async def _large(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield _LARGE
        finally:
            self.freed.set()

    async def _slow(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(2):
            await asyncio.sleep(2 * _UNREAD_S)
            yield b"made"

    async def _short(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"all"

    def handler(self) -> Any:
        behaviours = {"Idle": self._idle, "Large": self._large, "Slow": self._slow, "Short": self._short}
        methods = {name: grpc.unary_stream_rpc_method_handler(behaviour) for name, behaviour in behaviours.items()}
        return grpc.method_handlers_generic_handler("streams.Streams", methods)


def _serve(scenario: "Callable[[Any, _Streams, DrainInterceptor], Awaitable[None]]", *outside: Any) -> None:
    async def run() -> None:
        streams, drain, health = _Streams(), DrainInterceptor(), HealthServicer()
        server = grpc.aio.server(interceptors=[*outside, ErrorInterceptor(), drain])
        server.add_generic_rpc_handlers((streams.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(_PATIENCE_S):
            await scenario(channel, streams, drain)
        await server.stop(0)

    asyncio.run(run())


def _open(channel: Any, name: str) -> Any:
    return channel.unary_stream(f"/streams.Streams/{name}")(b"", timeout=_PATIENCE_S)


async def _end_of(call: Any) -> tuple[grpc.StatusCode, str, bool]:
    """Status and reason of a call that fails, and whether it says when to come back."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_all(call)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return caught.value.code(), info.reason, status.details[1].Is(error_details_pb2.RetryInfo.DESCRIPTOR)


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def test_a_drain_tells_an_open_stream_to_come_back_and_frees_it() -> None:
    async def scenario(channel: Any, streams: _Streams, drain: DrainInterceptor) -> None:
        call = _open(channel, "Idle")
        assert await call.read() == b"first"
        drain.end_streams()
        assert await _end_of(call) == (grpc.StatusCode.UNAVAILABLE, "DRAINING", True)
        await streams.freed.wait()

    _serve(scenario)


def test_a_stream_that_begins_after_the_end_is_told_at_once() -> None:
    async def scenario(channel: Any, streams: _Streams, drain: DrainInterceptor) -> None:
        drain.end_streams()
        assert await _end_of(_open(channel, "Idle")) == (grpc.StatusCode.UNAVAILABLE, "DRAINING", True)

    _serve(scenario)


def test_without_being_told_a_stream_is_cut_without_a_word() -> None:
    async def run() -> None:
        streams = _Streams()
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), DrainInterceptor()])
        server.add_generic_rpc_handlers((streams.handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(_PATIENCE_S):
            call = _open(channel, "Idle")
            await call.read()
            await server.stop(0.1)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _read_all(call)
            assert rpc_status.from_call(caught.value) is None

    asyncio.run(run())


def test_a_drain_ends_a_health_watch_too() -> None:
    async def scenario(channel: Any, streams: _Streams, drain: DrainInterceptor) -> None:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="x"))
        assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        drain.end_streams()
        assert (await _end_of(call))[1] == "DRAINING"

    _serve(scenario)


def test_a_stream_that_nobody_reads_is_freed_and_its_caller_told_while_others_are_served() -> None:
    async def scenario(channel: Any, streams: _Streams, drain: DrainInterceptor) -> None:
        call = _open(channel, "Large")
        assert len(await call.read()) == len(_LARGE)
        await streams.freed.wait()
        assert [answer async for answer in _open(channel, "Short")] == [b"all"]
        assert await _end_of(call) == (grpc.StatusCode.UNAVAILABLE, "UNREAD", True)

    _serve(scenario, UnreadInterceptor(_UNREAD_S))


def test_without_the_bound_a_stream_that_nobody_reads_holds_what_it_has() -> None:
    async def scenario(channel: Any, streams: _Streams, drain: DrainInterceptor) -> None:
        call = _open(channel, "Large")
        await call.read()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(streams.freed.wait(), 5 * _UNREAD_S)
        call.cancel()
        await streams.freed.wait()

    _serve(scenario)


def test_answers_that_take_long_to_make_are_no_unread_ones() -> None:
    async def scenario(channel: Any, streams: _Streams, drain: DrainInterceptor) -> None:
        assert [answer async for answer in _open(channel, "Slow")] == [b"made", b"made"]

    _serve(scenario, UnreadInterceptor(_UNREAD_S))
