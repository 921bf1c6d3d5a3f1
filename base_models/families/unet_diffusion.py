"""What the families with a UNet share: a discrete noise schedule, and pictures drawn by their pipelines.

Shapes: B batch, C channels, H/W height and width. Pixels are in [-1, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.pipeline_model import PipelineModel
from base_models.family import LatentShape


class UNetDiffusion(PipelineModel):
    """See BaseModel. A family adds what a prompt becomes, and how its UNet is told."""

    def __init__(self, entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights of this dtype, but for the autoencoder's."""
        super().__init__(entry, device, dtype)
        self.denoiser.to(memory_format=torch.channels_last)
        self._noise = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        self.prediction = self._noise.config.prediction_type
        self._alphas_cumprod = self._noise.alphas_cumprod

    def timesteps(self, uniform_B: Tensor, shape: LatentShape) -> Tensor:
        return (uniform_B * self._noise.config.num_train_timesteps).long()

    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return self._noise.add_noise(latents_BCHW, noise_BCHW, timesteps_B)

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        if self.prediction == "v_prediction":
            return self._noise.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        return noise_BCHW

    def snr(self, timesteps_B: Tensor) -> Tensor:
        self._alphas_cumprod = self._alphas_cumprod.to(timesteps_B.device)
        alphas_B = self._alphas_cumprod[timesteps_B]
        return alphas_B / (1 - alphas_B)

    def schedule(self, shape: LatentShape, step_count: int) -> Mapping[str, Any]:
        return {"num_inference_steps": step_count}

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: int, between_steps: Callable[[], None] = lambda: None
    ) -> Tensor:
        def after_step(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            between_steps()
            return tensors

        with self.visiting.used(*self.pipeline.components):
            latents_BCHW = self._drawn(prompts, seeds, size, after_step)
        with torch.no_grad():
            return self.decode_latents(latents_BCHW).clamp(-1, 1)

    def _drawn(self, prompts: Sequence[str], seeds: Sequence[int], size: int, after_step: Any) -> Tensor:
        drawn: Tensor = self.pipeline(
            list(prompts),
            width=size,
            height=size,
            num_inference_steps=self.entry.generation.steps,
            guidance_scale=self.entry.generation.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
        return drawn
