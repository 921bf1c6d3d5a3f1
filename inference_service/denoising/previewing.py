"""Previews, beside the step loop: drawing one waits for the device, and no step should."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from inference_service.denoising.batch_thread import BatchThread
from inference_service.denoising.latent_preview import LatentPreview
from inference_service.denoising.rows import Job, Row
from inference_service.engine import Preview
from inference_service.generation import ImageTask

_BATCH = 16


@dataclass(frozen=True, eq=False)
class _Sketch:
    """What a row was when it asked: it goes on meanwhile."""

    job: Job
    task: ImageTask
    completed_steps: int
    clean_CHW: Tensor


class Previewer:
    """Draws for one base model and tells every row's job."""

    def __init__(self, preview: LatentPreview) -> None:
        self._preview = preview
        self._thread = BatchThread("previewing", _BATCH, _together, self._draw, _failed)
        self.close = self._thread.close

    def draw(self, row: Row) -> None:
        """Have a row drawn as its last step saw it. From any thread."""
        assert row.last_clean_CHW is not None
        self._thread.put(_Sketch(row.job, row.task, row.place, row.last_clean_CHW))

    def _draw(self, sketches: Sequence[_Sketch]) -> None:
        for sketch in sketches:
            if not sketch.job.is_abandoned:
                pixels_HWC = self._preview.draw(sketch.clean_CHW)
                sketch.job.tell(Preview(sketch.task, sketch.completed_steps, pixels_HWC))


def _together(sketch: _Sketch) -> None:
    return None


def _failed(sketches: Sequence[_Sketch], error: Exception) -> None:
    if len(sketches) == 1:
        sketches[0].job.fail(error)
