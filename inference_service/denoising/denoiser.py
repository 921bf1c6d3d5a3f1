"""One forward pass for rows of any step, scheduler, guidance and adapters, and what it makes of each row.

Its one rule: a row is changed only when the whole pass has succeeded.

Shapes: M images, N rows of the forward pass (two for an image with guidance), C channels, H/W height and width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.family import BaseModel, Conditioning
from inference_service.denoising.adapted_layers import AdaptedLayers
from inference_service.denoising.rows import Kept, Row
from inference_service.denoising.start_latents import outside_kept


class Denoiser:
    """The base model's denoiser with its adapted layers. Used by one thread."""

    def __init__(self, base: BaseModel, layers: AdaptedLayers) -> None:
        self._base = base
        self._layers = layers
        self._previous: torch.cuda.Event | None = None

    @torch.inference_mode()
    def advance(self, rows: Sequence[Row]) -> None:
        """Take every row one step further. All of them are of one group."""
        ordered = sorted(rows, key=lambda row: row.unconditional is None)
        guided = sum(row.unconditional is not None for row in ordered)
        self._layers.wear([row.job.outfit for row in ordered], guided)

        device = self._base.device
        steps = [row.next_step for row in ordered]
        numbers = torch.tensor(
            [
                (
                    step.timestep,
                    step.input_scale,
                    step.clean_from_x,
                    step.clean_from_m,
                    step.next_from_x,
                    step.next_from_clean,
                    step.next_from_last,
                    row.job.request.guidance_scale,
                )
                for row, step in zip(ordered, steps, strict=True)
            ],
            dtype=torch.float32,
        ).to(device, non_blocking=True)
        timesteps_M, *columns = numbers.unbind(1)
        scale, clean_from_x, clean_from_m, from_x, from_clean, from_last, guidance = (
            column.view(-1, 1, 1, 1) for column in columns
        )
        x_MCHW = torch.stack([row.latents_CHW for row in ordered])
        # A first step has no step before; its factor for it is zero.
        last_MCHW = torch.stack(
            [row.latents_CHW if row.last_clean_CHW is None else row.last_clean_CHW for row in ordered]
        )
        predicted_NCHW = self._base.predict(
            _doubled(scale * x_MCHW, guided), _doubled(timesteps_M, guided), _conditioning(ordered)
        )
        m_MCHW = self._guided(predicted_NCHW.float(), guided, guidance[:guided])
        clean_MCHW = clean_from_x * x_MCHW + clean_from_m * m_MCHW
        next_MCHW = from_x * x_MCHW + from_clean * clean_MCHW + from_last * last_MCHW

        for row, latents_CHW, clean_CHW in zip(ordered, next_MCHW, clean_MCHW, strict=True):
            row.place += 1
            row.latents_CHW = latents_CHW if row.kept is None else _outside_kept(row, row.kept, latents_CHW)
            row.last_clean_CHW = clean_CHW
        self._wait_for_previous()

    def _guided(self, predicted_NCHW: Tensor, guided: int, scale_M111: Tensor) -> Tensor:
        with_prompt, without = predicted_NCHW[: 2 * guided : 2], predicted_NCHW[1 : 2 * guided : 2]
        return torch.cat([self._base.guide(with_prompt, without, scale_M111), predicted_NCHW[2 * guided :]])

    def _wait_for_previous(self) -> None:
        """On a GPU, have one step under way while the next is prepared, and no more: who joins or leaves is not to wait
        behind steps that were launched long ago."""
        if self._base.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
            if self._previous is not None:
                self._previous.synchronize()
            self._previous = event


def _outside_kept(row: Row, kept: Kept, latents_CHW: Tensor) -> Tensor:
    """With the picture put back where the mask leaves it alone, as it stands where the next step begins."""
    signal = latents_CHW.new_tensor([row.path.signal[row.place]])
    noise = latents_CHW.new_tensor([row.path.noise_scale[row.place]])
    return outside_kept(
        latents_CHW[None], kept.picture_CHW[None], kept.noise_CHW[None], kept.mask_1HW[None], signal, noise
    )[0]


def _doubled(values: Tensor, guided: int) -> Tensor:
    """The first so many twice, next to each other: with the prompt, and with the negative one."""
    return torch.cat([values[:guided].repeat_interleave(2, dim=0), values[guided:]])


def _conditioning(ordered: Sequence[Row]) -> Conditioning:
    each = [part for row in ordered for part in (row.conditioning, row.unconditional) if part is not None]
    return {name: torch.cat([part[name] for part in each]) for name in each[0]}
