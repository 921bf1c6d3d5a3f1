"""Curves as SVG, to be put into a page whose style sheet gives them their colours. Pure.

Its one rule: no script. What a pointer is over shows by itself: each point has a column of the plot, and its own text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from trainer_service.training_report.course import Point

# In the units of the view box, which a page scales.
_WIDTH, _HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 34, 40
_MOST_POINTS = 120
# The bell's width as a share of the points: single steps see different noise, so their losses jump about.
_SMOOTHED_OVER = 0.03
_FEWEST_SMOOTHED = 12


@dataclass(frozen=True)
class _Plot:
    """The rectangle between the axes: step 0 to `steps`, values `low` to `high`."""

    steps: int
    low: float
    high: float

    def x(self, step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self.steps

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - self.low) / (self.high - self.low)


def curve(title: str, points: Sequence[Point], steps: int, chosen_step: int, *, noisy: bool = False) -> Markup:
    """A curve over optimizer steps, with the step marked whose weights were published.

    points: at least one, in order of steps. noisy: draw the values faintly, and their smoothed course over them.
    """
    shown = thinned(points, _MOST_POINTS)
    ticks = nice_ticks(min(point.value for point in shown), max(point.value for point in shown))
    plot = _Plot(max(steps, shown[-1].step, 1), ticks[0], ticks[-1])
    smooth = smoothed(shown) if noisy and len(shown) >= _FEWEST_SMOOTHED else shown
    parts = [
        Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, title),
        Markup('<text class="name" x="{}" y="14">{}</text>').format(_LEFT, title),
        *_axes(plot, ticks),
        *_mark(plot, chosen_step),
        *([_path("faint", plot, shown)] if smooth is not shown else []),
        _path("line", plot, smooth),
        *([_dots(plot, shown)] if not noisy else []),
        *_columns(plot, shown),
        Markup("</svg>"),
    ]
    return Markup("\n").join(parts)


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: neighbours, in equal numbers, as their mean at the step of the last."""
    size = math.ceil(len(points) / most)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [Point(group[-1].step, sum(point.value for point in group) / len(group)) for group in groups]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Means with Gaussian weights by distance, which lag behind nothing (https://doi.org/10.1137/1109020)."""
    width = _SMOOTHED_OVER * len(points)
    bells = [math.exp(-0.5 * (distance / width) ** 2) for distance in range(len(points))]
    found = []
    for place, point in enumerate(points):
        weights = [bells[abs(place - other)] for other in range(len(points))]
        mean = sum(weight * other.value for weight, other in zip(weights, points, strict=True)) / sum(weights)
        found.append(Point(point.step, mean))
    return found


def nice_ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round values that hold both ends between them: some `about` steps of 1, 2 or 5 times a power of ten."""
    span = high - low if high > low else abs(high) or 1.0
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [count * step for count in range(first, max(last, first + 1) + 1)]


def _axes(plot: _Plot, ticks: Sequence[float]) -> list[Markup]:
    parts = []
    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    for value in ticks:
        y = plot.y(value)
        parts.append(
            Markup('<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
        )
        parts.append(
            Markup('<text class="tick end" x="{}" y="{:.1f}">{:.{}f}</text>').format(_LEFT - 8, y + 4, value, decimals)
        )
    for step in nice_ticks(0, plot.steps, about=5):
        if step <= plot.steps and step == round(step):
            parts.append(
                Markup('<text class="tick middle" x="{:.1f}" y="{}">{:.0f}</text>').format(
                    plot.x(step), _HEIGHT - _BOTTOM + 17, step
                )
            )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        Markup('<text class="tick middle" x="{:.1f}" y="{}">optimizer steps</text>').format(middle, _HEIGHT - 5)
    )
    return parts


def _mark(plot: _Plot, step: int) -> list[Markup]:
    """The chosen step. Its words are at the end where nothing else is said; a value that is pointed at hides them."""
    x = plot.x(step)
    return [
        Markup('<line class="chosen" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(x, x, _TOP, _HEIGHT - _BOTTOM),
        Markup('<text class="published end" x="{}" y="14">published: step {}</text>').format(_WIDTH - _RIGHT, step),
    ]


def _path(kind: str, plot: _Plot, points: Sequence[Point]) -> Markup:
    line = " ".join(f"{plot.x(point.step):.1f},{plot.y(point.value):.1f}" for point in points)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, line)


def _dots(plot: _Plot, points: Sequence[Point]) -> Markup:
    return Markup("").join(
        Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(plot.x(point.step), plot.y(point.value))
        for point in points
    )


def _columns(plot: _Plot, points: Sequence[Point]) -> list[Markup]:
    """For each point the part of the plot that is nearest to it, and what shows while a pointer is there."""
    xs = [plot.x(point.step) for point in points]
    edges = [_LEFT, *((left + right) / 2 for left, right in pairwise(xs)), _WIDTH - _RIGHT]
    column = Markup(
        '<g class="at"><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}"/>'
        '<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        '<text class="end" x="{end}" y="14">step {step}: {value:.4g}</text></g>'
    )
    bottom = _HEIGHT - _BOTTOM
    return [
        column.format(
            left=left,
            width=right - left,
            top=_TOP,
            bottom=bottom,
            height=bottom - _TOP,
            x=x,
            y=plot.y(point.value),
            end=_WIDTH - _RIGHT,
            step=point.step,
            value=point.value,
        )
        for point, x, (left, right) in zip(points, xs, pairwise(edges), strict=True)
    ]
