"""Curves: what is drawn where, and that it is what was measured."""

import re
from xml.etree import ElementTree

import pytest

from trainer_service.training_report.charts import curve, nice_ticks, smoothed, thinned
from trainer_service.training_report.course import Point

FALLING = [Point(step, 1 / step) for step in range(1, 501)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 100, [0, 50, 100]),
        (0.11, 0.49, [0.1, 0.2, 0.3, 0.4, 0.5]),
        (-3, 1, [-3, -2, -1, 0, 1]),
        (0.03512, 0.03513, [0.03512, 0.035125, 0.03513]),
        (0, 0, [0, 0.5]),
    ],
)
def test_ticks_are_round_and_hold_what_is_between_them(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_many_points_become_few_that_keep_the_mean_and_the_end() -> None:
    few = thinned(FALLING, 100)
    assert len(few) == 100
    assert few[-1].step == 500
    assert sum(point.value for point in few) / 100 == pytest.approx(sum(point.value for point in FALLING) / 500)
    assert thinned(FALLING[:7], 100) == FALLING[:7]


def test_smoothing_keeps_what_is_constant_from_the_first_point_on() -> None:
    assert [point.value for point in smoothed([Point(step, 2.5) for step in range(50)])] == pytest.approx([2.5] * 50)


def test_every_point_lies_in_the_plot_and_says_its_value() -> None:
    svg = curve("training loss", FALLING, 500, 320, noisy=True)
    drawing = ElementTree.fromstring(svg)
    assert drawing.get("aria-label") == "training loss"
    columns = drawing.findall("g")
    assert len(columns) == 100
    assert columns[-1].findtext("text") == f"step 500: {sum(point.value for point in FALLING[-5:]) / 5:.4g}"
    left, top, right, bottom = 58, 34, 468, 210
    coordinates = [
        tuple(map(float, pair.split(",")))
        for line in drawing.findall("polyline")
        for pair in line.get("points", "").split()
    ]
    assert len(coordinates) == 200
    assert all(left <= x <= right and top <= y <= bottom for x, y in coordinates)
    edges = [(float(column.find("rect").get("x")), float(column.find("rect").get("width"))) for column in columns]  # type: ignore[union-attr,arg-type]
    assert edges[0][0] == left
    assert sum(width for _, width in edges) == pytest.approx(right - left, abs=0.1 * len(edges))
    assert re.search(r">published: step 320<", svg)


def test_steps_are_counted_in_whole_numbers() -> None:
    drawing = ElementTree.fromstring(curve("validation loss", FALLING[:2], 2, 1))
    labels = [text.text for text in drawing.findall("text") if text.get("class") == "tick middle"]
    assert labels == ["0", "1", "2", "optimizer steps"]


@pytest.mark.parametrize("points", [[Point(1, 0.5)], [Point(1, 0.5), Point(2, 0.5)], [Point(3, 1e-9), Point(9, 1e9)]])
def test_a_curve_of_little_or_of_anything_is_a_curve(points: list[Point]) -> None:
    svg = curve("validation loss", points, 1, 1)
    assert "nan" not in svg
    assert len(ElementTree.fromstring(svg).findall("circle")) == len(points)
