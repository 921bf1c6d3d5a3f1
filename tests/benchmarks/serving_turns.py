"""A contestant's turn: requests sent to it, in a closed loop or as they arrive, and what became of each.

Its one rule: everything is measured where the caller stands, from the moment at which a request was due.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.serving_load import PlannedRequest

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass
class Asked:
    """A request and what was heard of it. Times are those of `time.perf_counter`."""

    request: PlannedRequest
    due_s: float
    first_progress_s: float | None = None
    share_done: float = 0.0
    """Of its steps, by the last progress."""
    finished_s: float | None = None
    pixels_HWC: "NDArray[numpy.uint8] | None" = None

    @property
    def latency_s(self) -> float:
        """Until the whole picture was here; infinite where it never came."""
        return math.inf if self.finished_s is None else self.finished_s - self.due_s

    @property
    def first_progress_after_s(self) -> float:
        """Until the first sign that its denoising began; infinite where none came."""
        return math.inf if self.first_progress_s is None else self.first_progress_s - self.due_s


Ask = Callable[[Asked], Awaitable[None]]
"""Sends the request and notes in `Asked` what happens; a refusal leaves it unfinished, all else raises."""


@dataclass(frozen=True)
class Turn:
    """What became of some requests in so many seconds."""

    asked: Sequence[Asked]
    seconds: float

    @property
    def images_per_s(self) -> float:
        """Pictures a second. One that is under way counts by its steps, so that no turn ends at a lucky moment."""
        return sum(1 if one.finished_s is not None else one.share_done for one in self.asked) / self.seconds

    def of_kind(self, name: str) -> "Turn":
        """The same turn, as those saw it who asked for this kind."""
        return Turn([one for one in self.asked if one.request.kind.name == name], self.seconds)

    def latency_s(self, percent: float) -> float:
        """The percentile over all requests, those that never ended included."""
        return percentile([one.latency_s for one in self.asked], percent)

    def first_progress_after_s(self, percent: float) -> float:
        """The percentile over all requests."""
        return percentile([one.first_progress_after_s for one in self.asked], percent)

    def goodput_per_s(self, patience_s: float) -> float:
        """Pictures a second that came within the patience of those who asked."""
        return sum(one.latency_s <= patience_s for one in self.asked) / self.seconds


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that `percent` of all do not exceed (nearest rank), so that no two are mixed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


async def closed_loop(ask: Ask, requests: Iterable[PlannedRequest], waiting: int, seconds: float) -> Turn:
    """Keep `waiting` requests waiting for so many seconds, then give up what is left."""
    coming = iter(requests)
    asked: list[Asked] = []

    async def one_after_another() -> None:
        for request in coming:
            one = Asked(request, time.perf_counter())
            asked.append(one)
            await ask(one)
            assert one.finished_s is not None, f"refused with no more than {waiting} waiting"

    began_s = time.perf_counter()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as callers:
            for _ in range(waiting):
                callers.create_task(one_after_another())
    return Turn(asked, min(seconds, time.perf_counter() - began_s))


async def open_loop(ask: Ask, requests: Sequence[PlannedRequest], arrivals_s: Sequence[float]) -> Turn:
    """Send each request when it arrives, however many wait, and see all of them through."""
    began_s = time.perf_counter()
    asked = [Asked(request, began_s + at_s) for request, at_s in zip(requests, arrivals_s, strict=True)]

    async def at_its_time(one: Asked) -> None:
        await asyncio.sleep(one.due_s - time.perf_counter())
        await ask(one)

    async with asyncio.TaskGroup() as callers:
        for one in asked:
            callers.create_task(at_its_time(one))
    return Turn(asked, time.perf_counter() - began_s)


async def one_by_one(ask: Ask, requests: Iterable[PlannedRequest]) -> Turn:
    """Send each request when the one before is finished."""
    began_s = time.perf_counter()
    asked = []
    for request in requests:
        asked.append(Asked(request, time.perf_counter()))
        await ask(asked[-1])
    return Turn(asked, time.perf_counter() - began_s)
