"""One service's channel on an event loop: sends calls and drives streams, and sleeps between their tries as a task.

What is asked, and when again, is decided where the synchronous client has it decided; here it is awaited.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

from personae import routing
from personae.access import Access
from personae.calls import Call, Page, Sending, Upload
from personae.connection import CHANNEL_OPTIONS, silence
from personae.errors import Busy, Unavailable, from_rpc
from personae.patience import Outage, Patience, after_an_answer
from personae.stream import Stream

T = TypeVar("T")


class Connection:
    """The channel to one service. `make_stub` says which."""

    def __init__(
        self,
        address: str,
        make_stub: Callable[[grpc.aio.Channel], Any],
        patience: Patience,
        access: Access = Access(),  # noqa: B008 - frozen
        adapter_affinity: bool = False,
    ) -> None:
        access.check(address)
        self._address, self._make_stub = address, make_stub
        self._access, self._credentials = access, access.credentials()
        self._options = [*CHANNEL_OPTIONS, *access.options(), *routing.channel_options(adapter_affinity)]
        self._opened: tuple[grpc.aio.Channel, Any] | None = None
        self._closed = False
        self.patience = patience
        """Grows when the server has answered."""

    async def close(self) -> None:
        """Close the channel; open streams end."""
        self._closed = True
        channel, _ = self._open()
        await channel.close()

    async def ask(self, call: Call[T]) -> T:
        """What the call's answer means; asked again while the server is unavailable."""
        rpc = self._rpc(call.rpc)

        async def attempt() -> Any:
            metadata = (*self._access.metadata(), *routing.metadata(call.routing_key))
            open_call = rpc(call.request, timeout=self.patience.call_s, metadata=metadata)
            try:
                return await open_call
            except asyncio.CancelledError:
                raise await _cause(open_call) from None

        return call.translate(await self._patiently(attempt))

    async def send(self, upload: Upload[T]) -> T:
        """What the upload's answer means; begun again while the server is unavailable."""
        rpc = self._rpc(upload.rpc)

        async def attempt() -> Any:
            sending = Sending(upload.messages())
            metadata = self._access.metadata()
            open_call = rpc(_read_in_threads(sending), timeout=self.patience.upload_s, metadata=metadata)
            try:
                return await open_call
            except asyncio.CancelledError:
                raise sending.failure or await _cause(open_call) from None

        return upload.translate(await self._patiently(attempt))

    async def pages(self, call_for: Callable[[str], Call[Page[T]]]) -> AsyncGenerator[T, None]:
        """Every entry of a listing; `call_for(token)` asks for one page of it."""
        token = ""
        while True:
            entries, token = await self.ask(call_for(token))
            for entry in entries:
                yield entry
            if not token:
                return

    async def follow(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        """What the stream brings, however often it is cut. Closing the iterator cancels the call."""
        while not stream.complete:
            metadata = (*self._access.metadata(), *routing.metadata(stream.routing_key))
            call = self._rpc(stream.rpc)(stream.request(), timeout=stream.timeout_s, metadata=metadata)
            try:
                async with aclosing(_read(call, stream.silence_s)) as messages:
                    async for message in messages:
                        self.patience = after_an_answer(self.patience)
                        item = stream.take(message)
                        if item is not None:
                            yield item
                if not stream.complete:
                    raise stream.ended_early()
            except (Unavailable, Busy) as cut:
                if self._closed:
                    raise
                if not stream.complete:
                    await asyncio.sleep(stream.pause_s(cut, time.monotonic()))

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        outage = Outage(self.patience.unanswered_s, self.patience.first_pause_s)
        while True:
            try:
                answer = await attempt()
                self.patience = after_an_answer(self.patience)
                return answer
            except grpc.aio.AioRpcError as failure:
                error = from_rpc(failure)
                if self._closed or not isinstance(error, Unavailable):
                    raise error from failure
                await asyncio.sleep(outage.pause_s(error, time.monotonic()))

    def _rpc(self, name: str) -> Any:
        return getattr(self._open()[1], name)

    def _open(self) -> tuple[grpc.aio.Channel, Any]:
        # A channel belongs to the loop it is made in, and a client may be made before there is one.
        if self._opened is None:
            channel = (
                grpc.aio.secure_channel(self._address, self._credentials, self._options)
                if self._credentials
                else grpc.aio.insecure_channel(self._address, self._options)
            )
            self._opened = channel, self._make_stub(channel)
        return self._opened


async def _read(call: Any, silence_s: float | None) -> AsyncGenerator[Any, None]:
    """The messages of a stream. Closing the iterator cancels the call.

    silence_s: longest wait for the next message. A silent stream raises Unavailable, like a cut one.
    """
    try:
        while True:
            async with asyncio.timeout(silence_s):
                message = await call.read()
            if message is grpc.aio.EOF:
                return
            yield message
    except TimeoutError:
        raise silence(silence_s) from None
    except asyncio.CancelledError:
        raise await _cause(call) from None
    except grpc.aio.AioRpcError as failure:
        raise from_rpc(failure) from failure
    finally:
        call.cancel()


async def _cause(call: Any) -> BaseException:
    """Why a call was cancelled: grpc raises CancelledError for a cancelled task, and where a peer cancelled, too."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        return asyncio.CancelledError()
    return from_rpc(
        grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
    )


async def _read_in_threads(sending: Sending) -> AsyncIterator[Message]:
    """The messages, each made in a thread, because making one may read a file."""
    while (message := await asyncio.to_thread(next, sending, None)) is not None:
        yield message
