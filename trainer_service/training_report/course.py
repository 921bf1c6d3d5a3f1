"""A training's events -> its way from the first step to the last, as if nothing had interrupted it. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer_service.events import Happening, Notice, Progress, SampleReady, Validated


@dataclass(frozen=True)
class Point:
    """A value at an optimizer step, counted from 1."""

    step: int
    value: float


@dataclass(frozen=True)
class Course:
    """What was measured and drawn, in order of steps, and what people were told, in order of time."""

    losses: tuple[Point, ...] = ()
    """Each the mean over the steps since the one before."""
    validations: tuple[Point, ...] = ()
    samples: tuple[SampleReady, ...] = ()
    notices: tuple[Notice, ...] = ()


def course(happenings: Iterable[Happening]) -> Course:
    """Read a training's happenings, oldest first, of all its workers.

    A worker that took over does the steps since the checkpoint again: what it says of a step replaces what was said of
    that step and of later ones.
    """
    losses, validations = list[Point](), list[Point]()
    samples, notices = list[SampleReady](), list[Notice]()
    for what in happenings:
        match what:
            case Progress(completed=step, loss=float(loss)) if math.isfinite(loss):
                _forget_from(losses, step)
                losses.append(Point(step, loss))
            case Validated(step=step, loss=loss) if math.isfinite(loss):
                _forget_from(validations, step)
                validations.append(Point(step, loss))
            case SampleReady():
                while samples and (samples[-1].step, samples[-1].seed) >= (what.step, what.seed):
                    samples.pop()
                samples.append(what)
            case Notice():
                notices.append(what)
    return Course(tuple(losses), tuple(validations), tuple(samples), tuple(notices))


def shown_steps(steps: Sequence[int], chosen_step: int, most: int) -> tuple[list[int], int]:
    """At most `most` of the steps with samples, and of those the one that is closest to the chosen step.

    The first, the last and the closest are always there, the others as evenly as can be. steps: rising, at least one.
    """
    closest = min(steps, key=lambda step: (abs(step - chosen_step), step))
    if len(steps) <= most:
        return list(steps), closest
    even = {round(place * (len(steps) - 1) / (most - 2)) for place in range(most - 1)}
    return sorted({steps[place] for place in even} | {closest}), closest


def _forget_from(points: list[Point], step: int) -> None:
    while points and points[-1].step >= step:
        points.pop()
