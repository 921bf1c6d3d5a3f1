"""Uploads that are refused before their end: the rest is read and thrown away before the refusal is sent.

A server may answer before it has read everything, but a caller on `grpc.aio` that still writes then loses the answer
and sees INTERNAL in its place (grpc/grpc#36066). HTTP servers linger for the same reason.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

_LINGER_S = 10.0


class LingerInterceptor(grpc.aio.ServerInterceptor):
    """Belongs inside ErrorInterceptor: what a handler raises passes on once the caller's stream has ended.

    linger_s: so long a caller may go on sending; then the refusal is sent all the same, and ends the call.
    """

    def __init__(self, linger_s: float = _LINGER_S) -> None:
        self._linger_s = linger_s

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler = await continuation(handler_call_details)
        if handler is None or handler.stream_unary is None:
            return handler
        behaviour: Any = self._lingering(handler.stream_unary)
        return grpc.stream_unary_rpc_method_handler(
            behaviour, handler.request_deserializer, handler.response_serializer
        )

    def _lingering(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def handle(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            try:
                return await behaviour(requests, context)
            except Exception:
                await self._read_rest(context)
                raise

        return handle

    async def _read_rest(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            async with asyncio.timeout(self._linger_s):
                while await context.read() is not grpc.aio.EOF:
                    pass
        except TimeoutError:
            return
