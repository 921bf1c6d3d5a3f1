"""Uploads that are refused at their first message, over a loopback port."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from service_kit.error_status import ErrorInterceptor
from service_kit.errors import InvalidRequest, Violation
from service_kit.lingering import LingerInterceptor

_PATIENCE_S = 20.0
_LINGER_S = 0.3
_CHUNK = bytes(64 * 1024)
# Of so many at once, so often, some are lost to a server that does not linger, in every run.
_CALLS, _ROUNDS = 20, 5


async def _refuse(requests: AsyncIterator[bytes], context: Any) -> bytes:
    await anext(requests)
    raise InvalidRequest([Violation("header", "found nothing")])


def _ask(upload: Any, calls: int, rounds: int, linger_s: float = _PATIENCE_S) -> set[grpc.StatusCode]:
    """The statuses of so many calls at once, so many times."""

    async def run() -> set[grpc.StatusCode]:
        server = grpc.aio.server(interceptors=[ErrorInterceptor(), LingerInterceptor(linger_s)])
        handler = grpc.stream_unary_rpc_method_handler(_refuse)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("uploads.Uploads", {"Upload": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.stream_unary("/uploads.Uploads/Upload")
            found = {
                await code
                for _ in range(rounds)
                for code in [call.code() for call in [method(upload(), timeout=_PATIENCE_S) for _ in range(calls)]]
            }
        await server.stop(0)
        return found

    return asyncio.run(run())


def test_a_caller_that_is_still_sending_sees_why_it_was_refused() -> None:
    async def upload() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield _CHUNK

    assert _ask(upload, _CALLS, _ROUNDS) == {grpc.StatusCode.INVALID_ARGUMENT}


def test_a_caller_that_never_stops_sending_is_refused_all_the_same() -> None:
    async def upload() -> AsyncIterator[bytes]:
        yield _CHUNK
        await asyncio.Event().wait()

    assert _ask(upload, 1, 1, _LINGER_S) == {grpc.StatusCode.INVALID_ARGUMENT}
