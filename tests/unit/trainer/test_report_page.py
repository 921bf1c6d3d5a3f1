"""A report's page: the same bytes for the same report, nothing from outside, and callers' words as text."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

from PIL import Image

from tests.unit.trainer.recorded_report import CHOSEN, report
from trainer_service.training_report.course import Course
from trainer_service.training_report.page import render
from trainer_service.training_report.thumbnails import MAX_SIDE_PX, thumbnail

HOSTILE = """</figcaption></style><script>alert(1)</script><img src=x onerror=alert(2)>"' {{ 7 * 7 }} $(reboot)"""


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_same_report_gives_the_same_bytes() -> None:
    shown = report()
    assert render(shown) == render(shown)


def test_a_page_refers_to_nothing_outside_of_itself() -> None:
    page = Page(render(report()))
    assert {value.partition(",")[0] for name, value in page.attributes if name == "src"} == {"data:image/png;base64"}
    assert not {name for name, _ in page.attributes} & {"href", "style", "srcset", "action", "onload", "xlink:href"}
    assert not set(page.tags) & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"url\(|@import|@font-face", page.text)


def test_the_policy_admits_the_pictures_and_the_style_sheet_alone() -> None:
    html = render(report())
    policies = [value for name, value in Page(html).attributes if name == "content" and "default-src" in value]
    style = re.search(rb"<style>(.*)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1]).digest()).decode()
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]


def test_a_callers_words_are_text_wherever_they_stand() -> None:
    plain = Page(render(report()))
    changes = {"trigger_word": HOSTILE, "class_noun": HOSTILE, "licence": HOSTILE, "base_model": HOSTILE}
    shown = report(caption=HOSTILE, prompt=HOSTILE, **changes)
    config = shown.record.config.model_copy(update={"caption_template": HOSTILE, "sample_prompts": (HOSTILE,)})
    page = Page(render(replace(shown, record=shown.record.model_copy(update={"config": config}))))
    # One more fact, the licence: two tags of a list.
    assert sorted(page.tags) == sorted([*plain.tags, "div", "dt", "dd"])
    assert page.text.count(HOSTILE) >= 8
    # What is pasted into a shell is one argument there, whatever it holds.
    assert """personae generate '</figcaption>""" in page.text
    assert """>"'"'"' {{ 7 * 7 }} $(reboot)' \\""" in page.text


def test_what_is_not_known_is_not_shown() -> None:
    page = Page(render(replace(report(), evaluation=None, course=Course(), samples=(), validation_loss=None)))
    assert "It was not evaluated" in page.text
    assert "svg" not in page.tags
    for absent in ("validation loss", "How it came about", "How it learned", "What happened", "likeness", "None"):
        assert absent not in page.text


def test_a_number_that_could_not_be_measured_says_so() -> None:
    page = Page(render(report()))
    assert "likeness0.90" in page.text
    assert "obedience88 %" in page.text
    assert "memorisation?Could not be measured." in page.text
    assert f"published: step {CHOSEN}" in page.text


def test_pictures_of_any_size_are_small_in_a_page_and_sharp_where_they_are_drawings() -> None:
    noise = Image.effect_noise((1024, 2048), 100)
    photograph = thumbnail(noise)
    assert (photograph.width, photograph.height) == (1024, 2048)
    assert photograph.uri.startswith("data:image/webp;base64,")
    assert len(photograph.uri) < 100_000
    drawing = thumbnail(Image.new("RGB", (1024, 1024), "teal"))
    assert drawing.uri.startswith("data:image/png;base64,")
    assert len(drawing.uri) < 2000
    assert MAX_SIDE_PX == 256
