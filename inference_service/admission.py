"""Who may wait: a bound on the requests that are open, and one on the passes that their unfinished images will cost.

Its one rule: a request is admitted whole or refused at once, with a time after which trying again makes sense. A share
of each bound is the most that one project may hold, so that no customer keeps the others out. Used on the event loop
only.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inference_service.throughput import Throughput
from service_kit.errors import DeadlineTooShort, TryLater

_MIN_RETRY_S, _MAX_RETRY_S = 0.5, 60.0
# For the time to try again, until a speed has been measured here: about one SDXL picture a second.
_UNMEASURED_PASSES_PER_S = 60.0
# How many projects share the engine goes up and down; more than the present number is allowed for.
_MARGIN = 1.25


@dataclass(frozen=True)
class Limits:
    """Most that may be held at once, by all and by one project."""

    cost: int
    """Passes that are admitted and not yet done."""
    requests: int
    """Open calls, from their first look to their last image."""
    project_share: float
    """Share of both that one project may hold, above 0 and at most 1."""

    @property
    def project_cost(self) -> int:
        """Passes of one project; no request may cost more."""
        return max(1, int(self.cost * self.project_share))

    @property
    def project_requests(self) -> int:
        """Open calls of one project."""
        return max(1, int(self.requests * self.project_share))


@dataclass(frozen=True)
class Demand:
    """What a request asks for: images that cost `image_cost` passes each."""

    project: str
    images: int
    image_cost: int

    @property
    def cost(self) -> int:
        """Passes in all."""
        return self.images * self.image_cost


class Ticket:
    """The images of one admitted request, by their index: what each still costs."""

    def __init__(self, demand: Demand, images_ahead: int, account: Callable[[int, int], None]) -> None:
        self.images_ahead = images_ahead
        """Images that were admitted before and were not finished then."""
        self._image_cost = demand.image_cost
        self._left = dict.fromkeys(range(demand.images), demand.image_cost)
        self._account = account

    def progress(self, indices: Iterable[int], completed_steps: int, total_steps: int) -> None:
        """Note how many of their steps these images have behind them."""
        # Decoding counts as one more step.
        to_go = self._image_cost * (total_steps + 1 - completed_steps) // (total_steps + 1)
        done = 0
        for index in indices:
            left = self._left.get(index, 0)
            self._left[index] = min(left, to_go)
            done += left - self._left[index]
        self._account(done, 0)

    def finish(self, index: int) -> None:
        """Note that an image is finished."""
        self._account(self._left.pop(index), 1)

    @property
    def left(self) -> tuple[int, int]:
        """Passes and images that are not done."""
        return sum(self._left.values()), len(self._left)


class Admission:
    """Counts passes, images and open requests, and measures how fast passes are done."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.images_waiting = 0
        """Images admitted and not finished."""
        self._throughput = Throughput(clock)
        # By project, without zeros: who asks for nothing takes no memory.
        self._cost: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()

    @property
    def cost_waiting(self) -> int:
        """Passes admitted and not done."""
        return self._cost.total()

    @property
    def requests_open(self) -> int:
        """Calls that hold a place."""
        return self._requests.total()

    @property
    def passes_per_s(self) -> float | None:
        """What is done in a second while there is work; None until it has been measured."""
        return self._throughput.passes_per_s

    @contextmanager
    def attend(self, project: str) -> Iterator[None]:
        """Hold a place for a call, before anything else is spent on it. Raises TryLater where there is none."""
        for reason, quota_of, held, limit in (
            ("QUEUE_FULL", "", self.requests_open, self.limits.requests),
            ("PROJECT_QUEUE_FULL", f"projects/{project}", self._requests[project], self.limits.project_requests),
        ):
            if held >= limit:
                # A place is free again when a request ends; what is left of one is the mean of what is left of all.
                retry_after_s = self._retry_s(self.cost_waiting / self.requests_open)
                whose = f" of {quota_of}" if quota_of else ""
                text = f"{held} requests{whose} are open already; no more may be"
                raise TryLater(reason, text, retry_after_s, quota_of)
        self._requests[project] += 1
        try:
            yield
        finally:
            _take(self._requests, project, 1)

    def consider(self, demand: Demand, time_left_s: float | None) -> None:
        """Raise what `admit` would raise now, and hold nothing: TryLater or DeadlineTooShort."""
        waiting, limits = self._cost[demand.project], self.limits
        excess = self.cost_waiting + demand.cost - limits.cost
        if excess > 0:
            raise TryLater(
                "QUEUE_FULL",
                f"{self.cost_waiting} passes wait already; {demand.cost} more would exceed the limit of {limits.cost}",
                self._retry_s(excess),
            )
        excess = waiting + demand.cost - limits.project_cost
        if excess > 0:
            raise TryLater(
                "PROJECT_QUEUE_FULL",
                f"{waiting} passes of project {demand.project} wait already; {demand.cost} more would exceed its limit "
                f"of {limits.project_cost}",
                self._retry_s(self._shared(demand.project, excess)),
                f"projects/{demand.project}",
            )
        if time_left_s is not None:
            self._consider_deadline(demand, time_left_s)

    @contextmanager
    def admit(self, demand: Demand, time_left_s: float | None) -> Iterator[Ticket]:
        """Hold places for the images until each is finished or the block is left; None: there is time without end.

        Raises TryLater where there is no room, DeadlineTooShort where the time left is not enough.
        """
        self.consider(demand, time_left_s)

        def account(cost: int, images: int) -> None:
            self._throughput.advance(cost)
            self._free(demand.project, cost, images)

        ticket = Ticket(demand, self.images_waiting, account)
        self._cost[demand.project] += demand.cost
        self.images_waiting += demand.images
        try:
            yield ticket
        finally:
            self._free(demand.project, *ticket.left)

    def _consider_deadline(self, demand: Demand, time_left_s: float) -> None:
        if time_left_s <= 0:
            raise DeadlineTooShort("the deadline has passed", None)
        speed = self.passes_per_s
        if speed is None:
            return
        own_s = demand.cost / speed
        needs_s = self._shared(demand.project, self._cost[demand.project] + demand.cost) / speed
        if needs_s > time_left_s:
            # In an empty queue it would do; where the images alone take longer, waiting does not help.
            retry_after_s = min(needs_s - time_left_s, self.cost_waiting / speed)
            raise DeadlineTooShort(
                f"{time_left_s:.1f} s are left; the images take {own_s:.1f} s alone, {needs_s:.1f} s with what waits",
                _bounded(retry_after_s) if own_s <= time_left_s else None,
            )

    def _shared(self, project: str, passes: int) -> float:
        """Passes that the engine does while it does these of one project, if the load stays as it is.

        The engine serves projects fairly, so each other one that has work gets as much. Counting only what the others
        have waiting now, or the whole queue, promises too much under overload: whoever is admitted to the last second
        that others could leave free misses it, with all the work that was spent (`test_goodput.py`).
        """
        others = len(self._cost.keys() - {project})
        return passes * (1 + _MARGIN * others)

    def _retry_s(self, passes: float) -> float:
        return _bounded(passes / (self.passes_per_s or _UNMEASURED_PASSES_PER_S))

    def _free(self, project: str, cost: int, images: int) -> None:
        _take(self._cost, project, cost)
        self.images_waiting -= images
        if not self.images_waiting:
            self._throughput.rest()


def _bounded(seconds: float) -> float:
    return min(max(seconds, _MIN_RETRY_S), _MAX_RETRY_S)


def _take(counts: Counter[str], project: str, amount: int) -> None:
    counts[project] -= amount
    if not counts[project]:
        del counts[project]
