"""Streams of answers that must not last for ever: those of a service that stops, and those that nobody reads.

Its one rule: who is still there is told by a status that he may ask again, and what the call held is free before that.
"""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from inspect import isawaitable
from typing import Any

import grpc

from service_kit.error_status import abort
from service_kit.errors import ServiceUnavailable
from service_kit.handlers import Behaviour, Continuation, Handler, behaviour_of, doing

_END = object()
_COME_BACK_S = 1.0
_UNREAD_S = 60.0
# A status waits behind the messages that were not read, and nobody may be left to read it.
_SAY_SO_S = 5.0


class _StreamInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler that answers with a stream."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming:
            return handler
        return doing(handler, self._wrap(behaviour_of(handler)))

    @abstractmethod
    def _wrap(self, behaviour: Behaviour) -> Behaviour: ...


class DrainInterceptor(_StreamInterceptor):
    """Ends the open streams, and those that begin later, once told to. Belongs inside ErrorInterceptor."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._ended = False

    def end_streams(self) -> None:
        """Raise ServiceUnavailable, reason DRAINING, in every stream, as soon as it waits for its next answer."""
        self._ended = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    def _wrap(self, behaviour: Behaviour) -> Behaviour:
        async def handle(request: Any, context: Any) -> AsyncIterator[Any]:
            answers = behaviour(request, context)
            if isawaitable(answers):
                # grpc's own health watch, which writes its answers itself.
                async with self._until_ended():
                    await answers
                return
            async with aclosing(answers):
                while True:
                    # Round the wait alone: while an answer is on its way, a cancellation would not come out here.
                    async with self._until_ended():
                        answer = await anext(answers, _END)
                    if answer is _END:
                        return
                    yield answer

        return handle

    @asynccontextmanager
    async def _until_ended(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(0 if self._ended else None) as wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if not wait.expired():
                raise
            why = "the service is stopping; ask again for what is missing"
            raise ServiceUnavailable("DRAINING", why, _COME_BACK_S) from None


class UnreadInterceptor(_StreamInterceptor):
    """Ends a stream whose caller is there and reads nothing for `patience_s`. Belongs outside of all others.

    Without it such a call would hold its images and its place in the queue for as long as the caller stays connected.
    """

    def __init__(self, patience_s: float = _UNREAD_S) -> None:
        self._patience_s = patience_s

    def _wrap(self, behaviour: Behaviour) -> Behaviour:
        async def handle(request: Any, context: Any) -> None:
            answers = behaviour(request, context)
            if isawaitable(answers):
                await answers
                return
            try:
                async with aclosing(answers):
                    async for answer in answers:
                        # Not round the `async for`: how long an answer takes to make is not the caller's doing.
                        async with asyncio.timeout(self._patience_s) as sending:
                            await context.write(answer)
            except TimeoutError:
                if not sending.expired():
                    raise
                await self._give_up(context)

        return handle

    async def _give_up(self, context: Any) -> None:
        why = f"the answers of this call were not read for {self._patience_s:g} s; ask again for what is missing"
        try:
            async with asyncio.timeout(_SAY_SO_S):
                await abort(context, ServiceUnavailable("UNREAD", why, _COME_BACK_S))
        except TimeoutError:
            # As if the caller had gone: grpc drops the call without a word in our log.
            raise asyncio.CancelledError from None
