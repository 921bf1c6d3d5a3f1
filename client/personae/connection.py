"""One service's channel: sends calls and drives streams, and sleeps between their tries in this thread.

Every call of the client goes through here, so that every failure leaves as one of the client's own errors.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import grpc

from personae.access import Access
from personae.calls import Call, Page, Sending, Upload
from personae.errors import InvalidRequest, Unavailable, Violation, from_rpc
from personae.patience import Outage, Patience, after_an_answer
from personae.stream import Stream

C = TypeVar("C")
T = TypeVar("T")
M = TypeVar("M", covariant=True)

CHANNEL_OPTIONS = (
    # A peer that died without a word is noticed by pings; `ping_timeout_ms` makes that take seconds, not a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The retries here pace themselves; a channel that waits longer before it reconnects would only make them fail.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class OpenCall(Protocol[M]):
    """An open stream of answers: what reading it needs."""

    def __iter__(self) -> Iterator[M]: ...
    def __next__(self) -> M: ...
    def cancel(self) -> Any: ...


class Connection:
    """The channel to one service. `make_stub` says which."""

    def __init__(
        self,
        address: str,
        make_stub: Callable[[grpc.Channel], Any],
        patience: Patience,
        access: Access = Access(),  # noqa: B008 - frozen
    ) -> None:
        access.check(address)
        credentials, options = access.credentials(), [*CHANNEL_OPTIONS, *access.options()]
        self._channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        self._stub = make_stub(self._channel)
        self._access = access
        self._closed = False
        self.patience = patience
        """Grows when the server has answered."""

    def close(self) -> None:
        """Close the channel; open streams end."""
        self._closed = True
        self._channel.close()

    def ask(self, call: Call[T]) -> T:
        """What the call's answer means; asked again while the server is unavailable."""
        rpc = getattr(self._stub, call.rpc)
        return call.translate(
            self._patiently(lambda: rpc(call.request, timeout=self.patience.call_s, metadata=self._access.metadata()))
        )

    def send(self, upload: Upload[T]) -> T:
        """What the upload's answer means; begun again while the server is unavailable."""
        rpc = getattr(self._stub, upload.rpc)

        def attempt() -> Any:
            sending = Sending(upload.messages())
            try:
                return rpc(sending, timeout=self.patience.upload_s, metadata=self._access.metadata())
            except grpc.RpcError:
                if sending.failure:
                    raise sending.failure from None
                raise

        return upload.translate(self._patiently(attempt))

    def pages(self, call_for: Callable[[str], Call[Page[T]]]) -> Iterator[T]:
        """Every entry of a listing; `call_for(token)` asks for one page of it."""
        token = ""
        while True:
            entries, token = self.ask(call_for(token))
            yield from entries
            if not token:
                return

    def follow(self, stream: Stream[T]) -> Iterator[T]:
        """What the stream brings, however often it is cut. Leaving the iterator cancels the call."""
        rpc = getattr(self._stub, stream.rpc)
        while not stream.complete:
            try:
                call = rpc(stream.request(), timeout=stream.timeout_s, metadata=self._access.metadata())
                for message in read(call, stream.silence_s):
                    self.patience = after_an_answer(self.patience)
                    item = stream.take(message)
                    if item is not None:
                        yield item
                if not stream.complete:
                    raise stream.ended_early()
            except Unavailable as cut:
                if self._closed:
                    raise
                if not stream.complete:
                    time.sleep(stream.outage.pause_s(cut, time.monotonic()))

    def _patiently(self, attempt: Callable[[], T]) -> T:
        outage = Outage(self.patience.unanswered_s, self.patience.first_pause_s)
        while True:
            try:
                answer = attempt()
                self.patience = after_an_answer(self.patience)
                return answer
            except grpc.RpcError as failure:
                error = from_rpc(failure)
                if self._closed or not isinstance(error, Unavailable):
                    raise error from failure
                time.sleep(outage.pause_s(error, time.monotonic()))


def read(call: OpenCall[T], silence_s: float | None = None) -> Iterator[T]:
    """The messages of a stream. Leaving the iterator cancels the call.

    silence_s: longest wait for the next message; only the time spent waiting for it counts, not the caller's own. A
    silent stream raises Unavailable, like a cut one.
    """
    silent = threading.Event()

    def give_up() -> None:
        silent.set()
        call.cancel()

    try:
        while True:
            watchdog = threading.Timer(silence_s, give_up) if silence_s is not None else None
            if watchdog:
                watchdog.daemon = True
                watchdog.start()
            try:
                message = next(call)
            except StopIteration:
                return
            finally:
                if watchdog:
                    watchdog.cancel()
            yield message
    except grpc.RpcError as failure:
        if silent.is_set():
            raise silence(silence_s) from failure
        raise from_rpc(failure) from failure
    finally:
        call.cancel()


def silence(silence_s: float | None) -> Unavailable:
    """A server that says nothing for too long counts as gone."""
    return Unavailable(f"the server sent nothing for {silence_s:g} seconds")


def needed(connection: C | None, argument: str) -> C:
    """The connection, or InvalidRequest where the client was made without that service's address."""
    if connection is None:
        raise InvalidRequest([Violation(argument, f"this needs Client({argument}='host:port')")])
    return connection
