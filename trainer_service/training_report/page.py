"""Puts a report together: one HTML file that loads nothing, runs nothing and shows whatever a caller wrote as text.

Its one rule: the same report gives the same bytes. Its content security policy admits pictures inside the file and the
one style sheet, by its hash; no script, whoever wrote it.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from service_kit.adapter_manifest import EvaluationEntry
from trainer_service.training_record import TrainingRecord
from trainer_service.training_report.charts import curve
from trainer_service.training_report.course import Course
from trainer_service.training_report.thumbnails import Thumbnail
from trainer_service.training_report.usage import usage

_HERE = Path(__file__).parent
_PAGE = Environment(
    loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).get_template("page.html.jinja")
_STYLE = (_HERE / "page.css").read_text()
_MEANINGS = {
    "likeness": "Is it the subject? 0: no more than without the adapter. 1: as the training pictures among themselves.",
    "obedience": "Share of the pictures that show the scene that was asked for. Higher is better.",
    "memorisation": "Does it copy? Up to 1 is good; above, pictures are nearer to training pictures than those are to "
    "each other.",
    "diversity": "How varied are the pictures? 0: always the same one. 1: as varied as the training pictures.",
}


@dataclass(frozen=True)
class LearnedPicture:
    """A picture as it was trained on: turned, cut and scaled."""

    thumbnail: Thumbnail
    caption: str
    held_out: bool
    """Only validated on."""
    has_mask: bool


@dataclass(frozen=True)
class DrawnPicture:
    """A sample of a step. `is_closest`: of those that are shown, drawn closest to the step that was published."""

    thumbnail: Thumbnail
    step: int
    memorisation: float | None
    is_closest: bool


@dataclass(frozen=True)
class SampleRow:
    """The samples of one prompt and seed, by step, and the training picture that looks most like the closest."""

    prompt: str
    seed: int
    drawn: Sequence[DrawnPicture]
    nearest: Thumbnail | None


@dataclass(frozen=True)
class TrainingReport:
    """Everything that a report shows."""

    record: TrainingRecord
    image_count: int
    """Pictures that were learned from or held out; `pictures` may be fewer."""
    pictures: Sequence[LearnedPicture]
    samples: Sequence[SampleRow]
    course: Course
    chosen_step: int
    validation_loss: float | None
    evaluation: EvaluationEntry | None
    finished_at: datetime


@dataclass(frozen=True)
class Measure:
    """A number of the evaluation, as a person reads it."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Setting:
    """A hyper-parameter, as it was used."""

    name: str
    value: str
    is_given: bool
    """By the caller; the others were decided for the base model and the number of pictures."""


def render(report: TrainingReport) -> bytes:
    """The file, in UTF-8."""
    record = report.record
    page = _PAGE.render(
        report=report,
        record=record,
        # Not escaped, because it is ours.
        style=Markup(_STYLE),
        style_hash=base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode(),
        charts=_charts(report),
        measures=_measures(report.evaluation),
        settings=_settings(record),
        usage=usage(record),
        took=_duration((report.finished_at - (record.started_at or record.created_at)).total_seconds()),
        held_out_count=record.config.validation_images,
        sizes=sorted({(picture.thumbnail.width, picture.thumbnail.height) for picture in report.pictures}),
    )
    return page.encode()


def _charts(report: TrainingReport) -> list[Markup]:
    """The curves that there is something of."""
    steps, chosen_step, course = report.record.config.steps, report.chosen_step, report.course
    charts = []
    if course.losses:
        charts.append(curve("training loss", course.losses, steps, chosen_step, noisy=True))
    if course.validations:
        charts.append(curve("validation loss", course.validations, steps, chosen_step))
    return charts


def _measures(evaluation: EvaluationEntry | None) -> list[Measure]:
    """All four, in their order; none where nothing was evaluated."""
    if evaluation is None:
        return []
    found = []
    for name, meaning in _MEANINGS.items():
        value = getattr(evaluation, name)
        written = "?" if value is None else f"{100 * value:.0f} %" if name == "obedience" else f"{value:.2f}"
        found.append(Measure(name, written, meaning if value is not None else "Could not be measured."))
    return found


def _settings(record: TrainingRecord) -> list[Setting]:
    """Every hyper-parameter but the prompts, which are shown with their pictures."""
    return [
        Setting(name, _written(value), name in record.given_config)
        for name, value in record.config.model_dump(exclude={"sample_prompts"}).items()
    ]


def _written(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
