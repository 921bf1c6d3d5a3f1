"""One service's channel: sends calls and drives streams, and sleeps between their tries in this thread.

Every call of the client goes through here, so that every failure leaves as one of the client's own errors. A channel
does not survive a fork, so each process has its own.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import grpc

from personae import routing
from personae.access import Access
from personae.calls import Call, Page, Sending, Upload
from personae.errors import Busy, InvalidRequest, Unavailable, Violation, from_rpc
from personae.patience import Outage, Patience, after_an_answer
from personae.stream import Stream

C = TypeVar("C")
T = TypeVar("T")
M = TypeVar("M", covariant=True)

CHANNEL_OPTIONS = (
    # A peer that died without a word is noticed by pings, within 9 s; without `ping_timeout_ms` it takes a minute.
    ("grpc.keepalive_time_ms", 4_000),
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


class Stop:
    """Ends a stream from another thread, whether it waits for a message or sleeps between two tries."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._call: OpenCall[Any] | None = None

    def set(self) -> None:
        """End it now. It is no error."""
        self._stopped.set()
        self._cancel()

    def is_set(self) -> bool:
        """Whether it was ended."""
        return self._stopped.is_set()

    def sleep(self, pause_s: float) -> None:
        """Return after that time, or at once when it is ended."""
        self._stopped.wait(pause_s)

    def watch(self, call: OpenCall[Any]) -> None:
        """From now on this is the call to cancel."""
        self._call = call
        if self._stopped.is_set():
            self._cancel()

    def _cancel(self) -> None:
        if self._call:
            self._call.cancel()


class Connection:
    """The channel to one service. `make_stub` says which."""

    def __init__(
        self,
        address: str,
        make_stub: Callable[[grpc.Channel], Any],
        patience: Patience,
        access: Access = Access(),  # noqa: B008 - frozen
        adapter_affinity: bool = False,
    ) -> None:
        access.check(address)
        self._address, self._make_stub = address, make_stub
        self._access, self._credentials = access, access.credentials()
        self._options = [*CHANNEL_OPTIONS, *access.options(), *routing.channel_options(adapter_affinity)]
        self._opened = {os.getpid(): self._open()}  # by process; a parent's is not the child's to close
        self._closed = False
        self.patience = patience
        """Grows when the server has answered."""

    def close(self) -> None:
        """Close the channel; open streams end. Those of other processes are not touched."""
        self._closed = True
        if opened := self._opened.get(os.getpid()):
            opened[0].close()

    def ask(self, call: Call[T]) -> T:
        """What the call's answer means; asked again while the server is unavailable."""
        rpc = self._rpc(call.rpc)

        def attempt() -> Any:
            metadata = (*self._access.metadata(), *routing.metadata(call.routing_key))
            return rpc(call.request, timeout=self.patience.call_s, metadata=metadata)

        return call.translate(self._patiently(attempt))

    def send(self, upload: Upload[T]) -> T:
        """What the upload's answer means; begun again while the server is unavailable."""
        rpc = self._rpc(upload.rpc)

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

    def follow(self, stream: Stream[T], stop: Stop | None = None) -> Iterator[T]:
        """What the stream brings, however often it is cut. Leaving the iterator cancels the call; `stop` ends both."""
        stop = stop or Stop()
        rpc = self._rpc(stream.rpc)
        while not (stream.complete or stop.is_set()):
            try:
                metadata = (*self._access.metadata(), *routing.metadata(stream.routing_key))
                call = rpc(stream.request(), timeout=stream.timeout_s, metadata=metadata)
                stop.watch(call)
                for message in read(call, stream.silence_s):
                    self.patience = after_an_answer(self.patience)
                    item = stream.take(message)
                    if item is not None:
                        yield item
                if not stream.complete:
                    raise stream.ended_early()
            except (Unavailable, Busy) as cut:
                if stop.is_set():
                    return
                if self._closed:
                    raise
                if not stream.complete:
                    stop.sleep(stream.pause_s(cut, time.monotonic()))

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

    def _rpc(self, name: str) -> Any:
        process = os.getpid()
        if process not in self._opened:
            # Of two threads that come here first, one's channel is used by both.
            self._opened.setdefault(process, self._open())
        return getattr(self._opened[process][1], name)

    def _open(self) -> tuple[grpc.Channel, Any]:
        channel = (
            grpc.secure_channel(self._address, self._credentials, self._options)
            if self._credentials
            else grpc.insecure_channel(self._address, self._options)
        )
        return channel, self._make_stub(channel)


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
