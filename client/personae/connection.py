"""One service's channel: deadlines, keepalive, and how long to keep asking while nobody answers.

Every call of the client goes through here, so that every failure leaves as one of the client's own errors.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import grpc

from personae.errors import InvalidRequest, Unavailable, Violation, from_rpc

S = TypeVar("S")
T = TypeVar("T")
M = TypeVar("M", covariant=True)

_OPTIONS = [
    # A peer that died without a word is noticed by pings; `ping_timeout_ms` makes that take seconds, not a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The retries here pace themselves; a channel that waits longer before it reconnects would only make them fail.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


@dataclass(frozen=True)
class Patience:
    """How long the client waits, in seconds, before it gives up."""

    call_s: float = 30.0
    """For the answer to one call."""
    upload_s: float = 600.0
    """For one upload of pictures."""
    generation_s: float = 3600.0
    """For one generation, however many images."""
    unanswered_s: float = 10.0
    """For a server to become available, before the first answer."""
    outage_s: float = 60.0
    """For a server to come back, after a stream was cut."""
    silence_s: float = 15.0
    """For the next message of a stream that is known to have heartbeats or to be a download."""
    first_pause_s: float = 0.2
    """Before the first repeat; doubled with each, up to 5 seconds, unless the server says how long to wait."""


class Outage:
    """A run of failures without a success between them: paces the repeats, and ends them when patience does."""

    def __init__(self, limit_s: float, first_pause_s: float) -> None:
        self._limit_s, self._first_pause_s = limit_s, first_pause_s
        self._since: float | None = None
        self._pause_s = first_pause_s

    def over(self) -> None:
        """Something succeeded."""
        self._since, self._pause_s = None, self._first_pause_s

    def wait(self, error: Unavailable) -> None:
        """Sleep until the next try is due, or raise `error` where that would be beyond the limit."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        # Full jitter spreads callers that lost the same server; what the server asks for is a minimum.
        pause_s = max(error.retry_after_s or 0.0, random.uniform(0.5, 1.0) * self._pause_s)
        if now + pause_s - self._since > self._limit_s:
            raise error
        time.sleep(pause_s)
        self._pause_s = min(2 * self._pause_s, 5.0)


class Call(Protocol[M]):
    """An open stream of answers: what reading it needs."""

    def __iter__(self) -> Iterator[M]: ...
    def __next__(self) -> M: ...
    def cancel(self) -> Any: ...


class Connection(Generic[S]):
    """The channel to one service, and its stub."""

    def __init__(self, address: str, make_stub: Callable[[grpc.Channel], S], patience: Patience) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self.stub = make_stub(self._channel)
        self.patience = patience

    def close(self) -> None:
        """Close the channel; open streams end."""
        self._channel.close()

    def outage(self, limit_s: float) -> Outage:
        """A fresh count of failures."""
        return Outage(limit_s, self.patience.first_pause_s)

    def ask(self, call: Callable[[float], T], timeout_s: float | None = None) -> T:
        """The answer of `call(timeout)`, asked again while the server is unavailable.

        It must be safe to repeat: a read, or a mutation whose request carries one and the same `request_id`.
        """
        outage = self.outage(self.patience.unanswered_s)
        while True:
            try:
                return call(timeout_s or self.patience.call_s)
            except grpc.RpcError as failure:
                error = from_rpc(failure)
                if not isinstance(error, Unavailable):
                    raise error from failure
                outage.wait(error)


def read(call: Call[T], silence_s: float | None = None) -> Iterator[T]:
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
            raise Unavailable(f"the server sent nothing for {silence_s:g} seconds") from failure
        raise from_rpc(failure) from failure
    finally:
        call.cancel()


def needed(connection: Connection[S] | None, argument: str) -> Connection[S]:
    """The connection, or InvalidRequest where the client was made without that service's address."""
    if connection is None:
        raise InvalidRequest([Violation(argument, f"this needs Client({argument}='host:port')")])
    return connection
