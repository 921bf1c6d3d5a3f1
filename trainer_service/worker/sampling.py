"""Sample pictures: what the adapter draws at a step, always of the same prompts and seeds, as files in the bucket.

Its one rule: a sample that fails costs a notice, never the training.
"""

import io
import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from base_models.family import BaseModel
from base_models.likeness.appearance import edges, squares
from base_models.likeness.evaluation import memorisation
from service_kit import schema
from service_kit.store import ObjectStore
from trainer_service.events import SampleReady
from trainer_service.training_record import LeaseLost, TrainingRecord
from trainer_service.worker.autocast import quick
from trainer_service.worker.interrupts import Cancelled, Draining
from trainer_service.worker.pictures import as_picture
from trainer_service.worker.preparing import make_room_for_steps
from trainer_service.worker.publishing import PublishedFile
from trainer_service.worker.reporter import Reporter

MAX_BYTES = 1024 * 1024
_WEBP_QUALITY = 90
_logger = logging.getLogger(__name__)


class Sampler:
    """Draws a training's samples with the base model as it is now."""

    def __init__(
        self,
        store: ObjectStore,
        record: TrainingRecord,
        base: BaseModel,
        pictures: Sequence[Tensor],
        reporter: Reporter,
    ) -> None:
        self._store, self._record, self._base, self._reporter = store, record, base, reporter
        self._training_NE = edges(squares(pictures, record.config.resolution))

    def draw(self, step: int, check: Callable[[], None]) -> None:
        """Draw, store and report the samples of a step. `check` is called now and then and may raise to interrupt."""
        config = self._record.config
        prompts = list(config.sample_prompts)
        try:
            for start in range(0, len(prompts), config.pictures_at_once):
                seeds = range(len(prompts))[start : start + config.pictures_at_once]
                with quick(self._base, config):
                    some = [prompts[seed] for seed in seeds]
                    pixels_BCHW = self._base.generate(some, seeds, config.resolution, check)
                for index, pixels_CHW in zip(seeds, pixels_BCHW.float().cpu(), strict=True):
                    self._report(step, index, pixels_CHW)
        except (LeaseLost, Cancelled, Draining):
            raise
        # For example a device whose memory does for the steps and not for pictures besides.
        except Exception as error:
            _logger.error("%s: no samples at step %d", self._record.name, step, exc_info=error)
            self._reporter.notice("SAMPLES_FAILED", f"no samples at step {step}: the worker's log has the reason")
        finally:
            make_room_for_steps(self._base, config)

    def _report(self, step: int, index: int, pixels_CHW: Tensor) -> None:
        body, suffix = _file(pixels_CHW)
        artifact_id = f"samples/{step:06d}-{index}.{suffix}"
        self._store.put(schema.training_file(self._record.name, artifact_id), body)
        self._reporter.report(
            SampleReady(
                step=step,
                prompt=self._record.config.sample_prompts[index],
                seed=index,
                artifact_id=artifact_id,
                memorisation=memorisation(edges(pixels_CHW[None]), self._training_NE, self._training_NE),
            )
        )


def stored_samples(store: ObjectStore, record: TrainingRecord) -> list[PublishedFile]:
    """The samples of a training that are in the bucket, by step, those of earlier workers too."""
    folder = f"{record.name}/"
    found = []
    for key in store.keys(schema.training_samples_prefix(record.name)):
        artifact_id = key.removeprefix(folder)
        media_type = f"image/{artifact_id.rpartition('.')[2]}"
        found.append(PublishedFile(artifact_id, media_type, store.get(key).body))
    return found


def _file(pixels_CHW: Tensor) -> tuple[bytes, str]:
    """A PNG, or a WebP where that would be too large; and its suffix."""
    picture = as_picture(pixels_CHW)
    file = io.BytesIO()
    picture.save(file, "PNG")
    if file.tell() <= MAX_BYTES:
        return file.getvalue(), "png"
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=_WEBP_QUALITY)
    return file.getvalue(), "webp"
