"""A report in a headless Chromium: that it is whole, asks for nothing, and runs nothing, whatever callers wrote.

The report of a real training is opened in `test_trainings_tell.py`.
"""

from pathlib import Path

import pytest

from tests.browser import open_page
from tests.unit.trainer.recorded_report import STEPS, report
from trainer_service.training_report.page import render

HOSTILE = (
    "</style></title></textarea><script>document.title = 'ran'</script>"
    "<img src='http://127.0.0.1:9/x' onerror=\"document.title = 'ran'\"><svg onload=\"document.title = 'ran'\">"
)
LAST_COLUMN = """
(box => [box.right, box.top])(document.querySelector(".at:last-of-type rect").getBoundingClientRect())
"""
SHOWN = """
[...document.querySelectorAll(".at text")]
    .filter(text => getComputedStyle(text).visibility == "visible").map(text => text.textContent)
"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (400, True)])
def test_callers_words_are_shown_and_neither_run_nor_fetch_anything(tmp_path: Path, width: int, dark: bool) -> None:
    words = {"trigger_word": HOSTILE, "licence": HOSTILE, "base_model": HOSTILE, "adapter_id": HOSTILE}
    file = tmp_path / "report.html"
    file.write_bytes(render(report(caption=HOSTILE, prompt=HOSTILE, **words)))
    with open_page(file, width, dark=dark) as page:
        assert page.value("document.title") == f"{HOSTILE}, version 1: training report"
        assert page.value("document.body.innerText").count(HOSTILE) >= 6
        assert page.value("document.documentElement.scrollWidth") <= width
        paper = page.value("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(23, 22, 20)" if dark else "rgb(251, 250, 247)")
    assert [address for address in page.requests if not address.startswith("data:")] == [file.as_uri()]
    assert page.complaints == []


def test_a_pointer_over_a_curve_is_told_the_value(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(render(report()))
    with open_page(file) as page:
        page.value("document.querySelector('.chart').scrollIntoView()")
        right, top = page.value(LAST_COLUMN)
        assert page.value(SHOWN) == []
        page.call("Input.dispatchMouseEvent", type="mouseMoved", x=right - 1, y=top + 10)
        (said,) = page.value(SHOWN)
        assert said.startswith(f"step {STEPS}: ")
        assert page.value("getComputedStyle(document.querySelector('.published')).visibility") == "hidden"


def test_what_a_page_would_run_or_fetch_is_refused_and_noticed_here(tmp_path: Path) -> None:
    """Without this, the tests above could not fail."""
    file = tmp_path / "report.html"
    file.write_bytes(
        render(report()).replace(b"<main>", b"<main><script>alert(1)</script><img src='http://127.0.0.1:9/x'>")
    )
    with open_page(file) as page:
        complaints = " ".join(page.complaints)
    assert "violates the following Content Security Policy directive" in complaints
    assert "http://127.0.0.1:9/x" in complaints
