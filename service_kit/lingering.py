"""Uploads that are refused before their end: the rest is read and thrown away before the refusal is sent.

A server may answer before it has read everything, but a caller on `grpc.aio` that still writes then loses the answer
and sees INTERNAL in its place (grpc/grpc#36066). HTTP servers linger for the same reason.
"""

import asyncio
from typing import Any

import grpc

from service_kit.handlers import Behaviour, Continuation, Handler, behaviour_of, doing

_LINGER_S = 10.0


class LingerInterceptor(grpc.aio.ServerInterceptor):
    """Belongs inside ErrorInterceptor: what a handler raises passes on once the caller's stream has ended.

    linger_s: so long a caller may go on sending; then the refusal is sent all the same, and ends the call.
    """

    def __init__(self, linger_s: float = _LINGER_S) -> None:
        self._linger_s = linger_s

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None or handler.stream_unary is None:
            return handler
        return doing(handler, self._lingering(behaviour_of(handler)))

    def _lingering(self, behaviour: Behaviour) -> Behaviour:
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
