"""The report of a training, from what its worker has at hand: pictures, samples, events of this and earlier epochs.

Its one rule: a report that fails costs a notice, never the adapter.

Shapes: N training pictures, C channels, H/W height and width, E edge features.
"""

import io
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain, groupby

import torch
from PIL import Image
from torch import Tensor

from base_models.likeness.appearance import edges, squares
from service_kit.adapter_manifest import REPORT_FILE
from service_kit.store import ObjectStore
from trainer_service.events import SampleReady
from trainer_service.journal import Journal
from trainer_service.training_record import LeaseLost, TrainingRecord
from trainer_service.training_report.course import Course, course, shown_steps
from trainer_service.training_report.page import DrawnPicture, LearnedPicture, SampleRow, TrainingReport, render
from trainer_service.training_report.thumbnails import thumbnail
from trainer_service.worker.interrupts import Cancelled, Draining
from trainer_service.worker.pictures import as_picture, as_pixels
from trainer_service.worker.preparing import Prepared, held_out_and_taught
from trainer_service.worker.publishing import Outcome, PublishedFile
from trainer_service.worker.reporter import Reporter

# With four sample prompts at most, what keeps a report within a few MiB.
MAX_PICTURES = 64
MAX_SAMPLE_STEPS = 8
_logger = logging.getLogger(__name__)


def report_if_possible(
    store: ObjectStore,
    record: TrainingRecord,
    prepared: Prepared,
    outcome: Outcome,
    reporter: Reporter,
    check: Callable[[], None],
    now: Callable[[], datetime],
) -> PublishedFile | None:
    """The report, or None and a notice where it cannot be made. Raises what interrupts the training, as `check` does.

    record: as it was taken; what earlier epochs did is read from the log.
    """
    try:
        earlier = []
        for event in Journal(store, record.name).before(record.epoch):
            check()
            earlier.append(event.what)
        told = course(chain(earlier, reporter.happened))
        report = TrainingReport(
            record=record,
            image_count=len(prepared.pictures),
            pictures=_learned(record, prepared),
            samples=_sample_rows(record, prepared.pictures, told, outcome),
            course=told,
            chosen_step=outcome.chosen_step,
            validation_loss=outcome.validation_loss,
            evaluation=outcome.evaluation,
            finished_at=now(),
        )
        return PublishedFile(REPORT_FILE, "text/html", render(report))
    except (LeaseLost, Cancelled, Draining):
        raise
    # Whatever it is, for example a store that does not find an event any more.
    except Exception as error:
        _logger.error("%s: no report", record.name, exc_info=error)
        reporter.notice("REPORT_FAILED", "the adapter is published without a report: the worker's log has the reason")
        return None


def _learned(record: TrainingRecord, prepared: Prepared) -> list[LearnedPicture]:
    """The first pictures as they were trained on."""
    held_out, _ = held_out_and_taught(record.config, len(prepared.pictures))
    shown = zip(prepared.pictures[:MAX_PICTURES], prepared.dataset.images[:MAX_PICTURES], strict=True)
    return [
        LearnedPicture(thumbnail(as_picture(pixels_CHW)), image.caption, row in held_out, bool(image.mask_digest))
        for row, (pixels_CHW, image) in enumerate(shown)
    ]


def _sample_rows(record: TrainingRecord, pictures: Sequence[Tensor], told: Course, outcome: Outcome) -> list[SampleRow]:
    """A row for each prompt, of at most MAX_SAMPLE_STEPS samples."""
    files = {file.artifact_id: file.body for file in outcome.samples}
    drawn = [sample for sample in told.samples if sample.artifact_id in files]
    if not drawn:
        return []
    steps, closest = shown_steps(sorted({sample.step for sample in drawn}), outcome.chosen_step, MAX_SAMPLE_STEPS)
    training_NE = edges(squares(pictures, record.config.resolution))
    by_seed = sorted(
        (sample for sample in drawn if sample.step in steps), key=lambda sample: (sample.seed, sample.step)
    )
    return [
        _sample_row(list(samples), closest, files, pictures, training_NE)
        for _, samples in groupby(by_seed, key=lambda sample: sample.seed)
    ]


def _sample_row(
    samples: Sequence[SampleReady],
    closest: int,
    files: dict[str, bytes],
    pictures: Sequence[Tensor],
    training_NE: Tensor,
) -> SampleRow:
    drawn, nearest = [], None
    for sample in samples:
        # What lies in the bucket was encoded by us.
        picture = Image.open(io.BytesIO(files[sample.artifact_id]), formats=("PNG", "WEBP"))
        is_closest = sample.step == closest
        drawn.append(DrawnPicture(thumbnail(picture), sample.step, sample.memorisation, is_closest))
        if is_closest:
            distances_1N = torch.cdist(edges(as_pixels(picture)[None]), training_NE)
            nearest = thumbnail(as_picture(pictures[int(distances_1N.argmin())]))
    return SampleRow(samples[0].prompt, samples[0].seed, drawn, nearest)
