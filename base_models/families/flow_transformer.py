"""What the families with a transformer share: a rectified flow (Esser et al. 2024, https://arxiv.org/abs/2403.03206).

At noise level sigma, from 0 to 1, latents are (1 - sigma) * picture + sigma * noise, and the network says the velocity
noise - picture. A timestep is 1000 * sigma, of any value between.

Shapes: B batch, C channels, H/W height and width, P patches of two by two latents. Pixels are in [-1, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.families.pipeline_model import PipelineModel
from base_models.family import LatentShape, told_scale

_TIMESTEPS = 1000
# Beyond these the logit-normal density has less than a millionth; at the ends themselves there is nothing to learn.
_RAREST = 1e-6


class FlowTransformer(PipelineModel):
    """See BaseModel. A family adds what a prompt becomes, how its transformer is told, and how its noise is shifted."""

    prediction = "flow"

    def __init__(self, entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights of this dtype, but for the autoencoder's."""
        super().__init__(entry, device, dtype)
        # Picture by picture: a batch in float32 could take more memory than the steps did.
        self.pipeline.vae.enable_slicing()

    def schedule(self, shape: LatentShape, step_count: int) -> Mapping[str, Any]:
        # As most pipelines have it: from pure noise in equal steps, which the scheduler then shifts.
        return {"sigmas": np.linspace(1.0, 1 / step_count, step_count), "mu": self.shift(shape, step_count)}

    def shift(self, shape: LatentShape, step_count: int) -> float:
        """Mu: how much more noise counts in pictures of many patches, linear in their number (section 5.3.2)."""
        config = self.pipeline.scheduler.config
        few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        slope = (most - least) / (many - few)
        return float(patch_count(shape) * slope + least - slope * few)

    def timesteps(self, uniform_B: Tensor, shape: LatentShape) -> Tensor:
        # Logit-normal (equation 19, m = 0, s = 1), then shifted as when drawing (equation 23).
        normal_B = torch.special.ndtri(uniform_B.double().clamp(_RAREST, 1 - _RAREST))
        sigmas_B = normal_B.sigmoid()
        scheduler = self.pipeline.scheduler
        if scheduler.config.use_dynamic_shifting:
            sigmas_B = scheduler.time_shift(self.shift(shape, self.entry.generation.steps), 1.0, sigmas_B)
        else:
            sigmas_B = scheduler.shift * sigmas_B / (1 + (scheduler.shift - 1) * sigmas_B)
        return (_TIMESTEPS * sigmas_B).float()

    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        sigmas_B111 = (timesteps_B / _TIMESTEPS).view(-1, 1, 1, 1)
        return (1 - sigmas_B111) * latents_BCHW + sigmas_B111 * noise_BCHW

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return noise_BCHW - latents_BCHW

    def snr(self, timesteps_B: Tensor) -> Tensor:
        sigmas_B = timesteps_B / _TIMESTEPS
        return ((1 - sigmas_B) / sigmas_B).square()

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: int, between_steps: Callable[[], None] = lambda: None
    ) -> Tensor:
        defaults, shape = self.entry.generation, self.latent_shape(size, size)
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler_config)
        scheduler.set_timesteps(**self.schedule(shape, defaults.steps))
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        latents_BCHW = torch.stack(noise).to(self.device)
        told = told_scale(self.encode_prompts(prompts), defaults.guidance_scale)
        is_guided = self.entry.is_guided(defaults.guidance_scale)
        empty = self.encode_prompts([""] * len(prompts)) if is_guided else {}
        scale_B111 = torch.full((len(prompts), 1, 1, 1), defaults.guidance_scale, device=self.device)
        for timestep in scheduler.timesteps.to(self.device):
            timesteps_B = timestep.expand(len(prompts))
            said_BCHW = self.predict(latents_BCHW, timesteps_B, told).float()
            if is_guided:
                without_BCHW = self.predict(latents_BCHW, timesteps_B, empty).float()
                said_BCHW = self.guide(said_BCHW, without_BCHW, scale_B111)
            latents_BCHW = scheduler.step(said_BCHW, timestep, latents_BCHW).prev_sample
            between_steps()
        return self.decode_latents(latents_BCHW).clamp(-1, 1)


def patch_count(shape: LatentShape) -> int:
    """Patches of latents: what the transformer takes for a place."""
    _, height, width = shape
    return (height // 2) * (width // 2)


def to_patches(latents_BCHW: Tensor) -> Tensor:
    """Patches [B, P, 4 C], row by row; in each, channel by channel."""
    batch, channels, height, width = latents_BCHW.shape
    split = latents_BCHW.view(batch, channels, height // 2, 2, width // 2, 2)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // 2) * (width // 2), 4 * channels)


def from_patches(patches_BPC: Tensor, shape: LatentShape) -> Tensor:
    """The way back to latents_BCHW of this shape."""
    channels, height, width = shape
    split = patches_BPC.view(-1, height // 2, width // 2, channels, 2, 2)
    return split.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)
