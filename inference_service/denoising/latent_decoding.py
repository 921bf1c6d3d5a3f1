"""Finished latents to pictures, beside the step loop, batched.

Its one rule: what is not finite fails its request; it never becomes a picture.
"""

from collections.abc import Sequence

import torch

from base_models.family import BaseModel
from inference_service.denoising.batch_thread import BatchThread
from inference_service.denoising.rows import Row
from inference_service.engine import Picture
from service_kit.errors import PreconditionUnmet


class LatentDecoder:
    """Decodes for one base model and tells every row's job. batch: most rows at once."""

    def __init__(self, base: BaseModel, batch: int) -> None:
        self._base = base
        self._thread = BatchThread("latent-decoding", batch, _shape, self._decode, _failed)
        self.decode = self._thread.put
        self.close = self._thread.close

    @torch.inference_mode()
    def _decode(self, rows: Sequence[Row]) -> None:
        rows = [row for row in rows if not row.job.is_abandoned]
        if not rows:
            return
        pixels_BCHW = self._base.decode_latents(torch.stack([row.latents_CHW for row in rows])).float()
        finite_B = pixels_BCHW.isfinite().flatten(1).all(dim=1).tolist()
        # As diffusers' image processor turns [-1, 1] into bytes.
        bytes_BHWC = (pixels_BCHW * 0.5 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()
        for row, is_finite, pixels_HWC in zip(rows, finite_B, bytes_BHWC, strict=True):
            if is_finite:
                row.job.tell(Picture(row.task, pixels_HWC.numpy()))
            else:
                row.job.fail(_not_finite(row))


def _shape(row: Row) -> torch.Size:
    return row.latents_CHW.shape


def _failed(rows: Sequence[Row], error: Exception) -> None:
    if len(rows) == 1:
        rows[0].job.fail(error)


def _not_finite(row: Row) -> PreconditionUnmet:
    request = row.job.request
    subject = ", ".join(str(wanted.name) for wanted in request.adapters) or request.base_model
    return PreconditionUnmet(
        "NOT_FINITE",
        subject,
        f"the picture of seed {row.task.seed} with {subject} came out without finite values; "
        "give the adapters less weight or use others",
    )
