"""What is read from a stream of answers, whatever cuts it: one rule for watching, generating and downloading.

A stream knows what it still misses and asks for that alone; whoever drives it opens calls, and sleeps between them.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from google.protobuf.message import Message

from personae.errors import Busy, PersonaeError, Unavailable
from personae.patience import Outage

T = TypeVar("T")


class Stream(ABC, Generic[T]):
    """Driven like this, again and again until it is `complete`:

    send `request()` to the rpc, give each message to `take()` and hand on what that returns. Where the call fails with
    Unavailable or Busy, is silent for `silence_s`, or ends early, sleep as long as `pause_s()` says and go round again.
    """

    rpc: ClassVar[str]
    """The call's name in its service."""
    routing_key: str = ""
    """The adapter by which a server is chosen, where there are several; empty where any will do."""

    def __init__(self, outage: Outage, *, timeout_s: float | None = None, silence_s: float | None = None) -> None:
        self.outage = outage
        self.timeout_s = timeout_s
        """Longest time for one call; None means as long as it takes."""
        self.silence_s = silence_s
        """Longest wait for the next message; None where a server may be silent for long."""

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether everything has come."""

    @abstractmethod
    def request(self) -> Message:
        """Asks for what is still missing."""

    @abstractmethod
    def take(self, message: Any) -> T | None:
        """What a message brings the caller; None where it brings nothing new."""

    def pause_s(self, cut: Unavailable | Busy, now_s: float) -> float:
        """How long to sleep after a failure until the next try; raises it where there shall be none."""
        if isinstance(cut, Busy):
            raise cut
        return self.outage.pause_s(cut, now_s)

    @abstractmethod
    def ended_early(self) -> PersonaeError:
        """What it means that the server ended the call, without an error, before everything had come."""
