"""A report as a training would leave it, from nothing but values: for tests of pages and curves."""

import math
from datetime import UTC, datetime, timedelta

from PIL import Image

from service_kit.adapter_manifest import EvaluationEntry
from tests.unit.trainer.trainer_fakes import Trainer, request
from trainer_service.training_record import TrainingRecord
from trainer_service.training_report.course import Course, Point
from trainer_service.training_report.page import DrawnPicture, LearnedPicture, SampleRow, TrainingReport
from trainer_service.training_report.thumbnails import Thumbnail, thumbnail

STEPS, CHOSEN = 120, 90
BEGUN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def record(**changes: object) -> TrainingRecord:
    """A training's record, with some of its values replaced."""
    trainer = Trainer()
    trainer.dataset()
    created = trainer.trainings.create(request(config={"steps": STEPS, "seed": 1})).record
    return created.model_copy(update={"started_at": BEGUN, **changes})


def picture(shade: int, size: tuple[int, int] = (64, 64)) -> Thumbnail:
    return thumbnail(Image.linear_gradient("L").resize(size).point(lambda value: (value + shade) % 256))


def course() -> Course:
    """A loss that falls and jumps, and a validation that is best at the chosen step."""
    return Course(
        losses=tuple(Point(step, 0.2 + math.exp(-step / 40) + 0.1 * math.sin(step)) for step in range(1, STEPS + 1)),
        validations=tuple(Point(step, 0.1 + abs(step - CHOSEN) / 1000) for step in range(15, STEPS + 1, 15)),
    )


def report(caption: str = "happy, blue background", prompt: str = "a picture", **changes: object) -> TrainingReport:
    """A report of three pictures and one prompt; changes: of its record."""
    drawn = [DrawnPicture(picture(step), step, 0.8, step == CHOSEN) for step in (30, 60, CHOSEN, STEPS)]
    return TrainingReport(
        record=record(**changes),
        image_count=70,
        pictures=[LearnedPicture(picture(shade, (64, 48 + shade)), caption, shade == 0, True) for shade in (0, 16, 32)],
        samples=[SampleRow(prompt, 0, drawn, picture(7))],
        course=course(),
        chosen_step=CHOSEN,
        validation_loss=0.1,
        evaluation=EvaluationEntry(judge="toon-likeness-1", likeness=0.9, obedience=0.875, diversity=1.1),
        finished_at=BEGUN + timedelta(seconds=83),
    )
