"""Admission under load, on a clock of its own: what part of a fair engine's time goes into requests that end in time.

Nothing waits in real time, so the same seeds give the same figures anywhere.
"""

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from statistics import fmean

import pytest

from inference_service.admission import Admission, Demand, Limits, Ticket
from service_kit.errors import DeadlineTooShort, TryLater
from tests.unit.inference.fake_serving import Clock

STEPS, STEPS_PER_S, PASSES = 20, 120.0, 42
IMAGES = (1, 1, 1, 4)
PATIENCE_S, BEFORE_S, MEASURED_S = 6.0, 10.0, 30.0
# So large that the deadlines bound the queue, not this.
LIMITS = Limits(cost=40_000, requests=512, project_share=0.5)

Choice = Callable[[random.Random], str]


class Request:
    """One call: images one after the other."""

    def __init__(self, project: str, images: int, allowed_s: float, give_up_s: float) -> None:
        self.project, self.images, self.allowed_s, self.give_up_s = project, images, allowed_s, give_up_s
        self.steps = 0
        self.held = ExitStack()
        self.ticket: Ticket | None = None

    def step(self) -> bool:
        """Do one step; True when it was the last."""
        assert self.ticket is not None
        image, done = divmod(self.steps, STEPS)
        self.steps += 1
        self.ticket.progress([image], done + 1, STEPS)
        if done + 1 == STEPS:
            self.ticket.finish(image)
        return self.steps == self.images * STEPS


class Model:
    """Callers who come back when told to, and an engine that does a step of each project in turn."""

    def __init__(self, load: float, choose_project: Choice, deadlines_s: tuple[float, ...]) -> None:
        self.useful_steps = self.late = self.refused = 0
        self._load, self._choose_project, self._deadlines_s = load, choose_project, deadlines_s
        self._clock = Clock()
        self._admission = Admission(LIMITS, self._clock)
        self._random = random.Random(1)
        self._waiting: dict[str, deque[Request]] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self) -> float:
        """Share of the engine's time that went into requests which ended in time."""
        self._at(0.0, self._arrive)
        self._at(0.0, self._step)
        while self._due[0][0] < BEFORE_S + MEASURED_S:
            self._clock.now_s, _, act = heapq.heappop(self._due)
            act()
        return self.useful_steps / (MEASURED_S * STEPS_PER_S)

    def _at(self, time_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (time_s, next(self._order), act))

    def _arrive(self) -> None:
        draw, now = self._random, self._clock.now_s
        images = draw.choice(IMAGES)
        self._ask(Request(self._choose_project(draw), images, draw.choice(self._deadlines_s), now + PATIENCE_S))
        images_per_s = self._load * STEPS_PER_S / STEPS
        self._at(now + draw.expovariate(images_per_s / fmean(IMAGES)), self._arrive)

    def _ask(self, request: Request) -> None:
        now = self._clock.now_s
        if now >= request.give_up_s:
            return
        try:
            request.held.enter_context(self._admission.attend(request.project))
            demand = Demand(request.project, request.images, PASSES)
            request.ticket = request.held.enter_context(self._admission.admit(demand, request.allowed_s))
        except (TryLater, DeadlineTooShort) as refusal:
            request.held.close()
            self.refused += 1
            pause_s = request.allowed_s if refusal.retry_after_s is None else refusal.retry_after_s
            self._at(now + pause_s * self._random.uniform(1.0, 1.2), lambda: self._ask(request))
            return
        request.ticket.progress([0], 0, STEPS)
        self._waiting.setdefault(request.project, deque()).append(request)
        self._at(now + request.allowed_s, lambda: self._expire(request))

    def _expire(self, request: Request) -> None:
        request.held.close()
        turns = self._waiting.get(request.project, deque())
        if request in turns:
            self.late += 1
            turns.remove(request)

    def _step(self) -> None:
        for project in [project for project, turns in self._waiting.items() if not turns]:
            del self._waiting[project]
        if self._waiting:
            project = next(iter(self._waiting))
            turns = self._waiting.pop(project)
            if turns[0].step():
                request = turns.popleft()
                request.held.close()
                self.useful_steps += request.steps if self._clock.now_s >= BEFORE_S else 0
            # Behind the other projects.
            self._waiting[project] = turns
        self._at(self._clock.now_s + 1 / STEPS_PER_S, self._step)


MIXES: dict[str, Choice] = {
    "one customer": lambda draw: "one",
    "a flood and five others": lambda draw: draw.choice(["flood"] * 5 + list("abcde")),
    "fifty customers": lambda draw: str(draw.randrange(50)),
    "always somebody else": lambda draw: str(draw.randrange(10**9)),
}


@pytest.mark.parametrize("deadlines_s", [(3.0,), (1.0, 2.0, 4.0, 8.0)], ids=["equal", "mixed"])
@pytest.mark.parametrize("mix", MIXES)
def test_under_ten_times_the_load_the_engines_time_goes_into_what_ends_in_time(
    mix: str, deadlines_s: tuple[float, ...]
) -> None:
    assert Model(10.0, MIXES[mix], deadlines_s).run() >= 0.9


@pytest.mark.parametrize("mix", MIXES)
def test_under_a_third_of_the_load_hardly_anybody_is_refused_or_late(mix: str) -> None:
    model = Model(0.33, MIXES[mix], (5.0,))
    assert model.run() >= 0.25
    assert model.refused + model.late <= 1
