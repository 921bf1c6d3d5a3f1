"""Stable Diffusion 1.x, 2.x and SDXL, small and random."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from base_models.family import LatentShape
from base_models.traits.family_traits import SchedulerName, TargetsName
from inference_service.generation import GenerationRequest
from tests.benchmarks.random_base_model import write_tiny, write_tiny_sdxl
from tests.families.family_case import FamilyCase
from tests.random_adapter import ALL, TEXT_ATTENTION


class UNetCase(FamilyCase):
    """See FamilyCase. The noise schedule is the published one, from 0.00085 to 0.012 by its root."""

    read_by_diffusers = ("diffusers", "kohya")
    trained: TargetsName = "attention"
    scaling_factor: float
    predicts_v = False

    def options(self, request: GenerationRequest) -> dict[str, Any]:
        # Without one, SDXL's pipeline has zeros, and the empty text for one that is empty.
        negative = [request.negative_prompt] * len(request.tasks) if request.negative_prompt else None
        return {"guidance_scale": request.guidance_scale, "negative_prompt": negative}

    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        latents_BCHW: Tensor = pipeline.vae.encode(pixels_BCHW).latent_dist.mean * self.scaling_factor
        return latents_BCHW

    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        # x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e (Ho et al. 2020, equation 4).
        kept_B111 = _kept(timesteps_B)
        return kept_B111.sqrt() * latents_BCHW + (1 - kept_B111).sqrt() * noise_BCHW

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        if not self.predicts_v:
            return noise_BCHW
        # v = sqrt(abar_t) e - sqrt(1 - abar_t) x_0 (Salimans and Ho 2022, appendix D).
        kept_B111 = _kept(timesteps_B)
        return kept_B111.sqrt() * noise_BCHW - (1 - kept_B111).sqrt() * latents_BCHW

    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        said_BCHW: Tensor = output.sample
        return said_BCHW


class StableDiffusionCase(UNetCase):
    """See FamilyCase: 1.x, or 2.x where it predicts v."""

    adapted: ClassVar = {"unet": ALL, "text_encoder": TEXT_ATTENTION}
    scheduler: SchedulerName = "ddim"
    scaling_factor = 0.18215

    def __init__(self, predicts_v: bool) -> None:
        self.name = "sd2" if predicts_v else "sd1"
        self.predicts_v = predicts_v

    def write(self, folder: Path) -> None:
        write_tiny(folder, self.predicts_v)

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        return pipeline.encode_prompt(list(prompts), "cpu", 1, do_classifier_free_guidance=False)[0]

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        return {"sample": noisy_BCHW, "timestep": timesteps_B, "encoder_hidden_states": told}


class StableDiffusionXLCase(UNetCase):
    """See FamilyCase."""

    name = "sdxl"
    adapted: ClassVar = {"unet": ALL, "text_encoder": TEXT_ATTENTION, "text_encoder_2": TEXT_ATTENTION}
    scaling_factor = 0.13025

    def write(self, folder: Path) -> None:
        write_tiny_sdxl(folder)

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        prompt_BTD, _, pooled_BD, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return prompt_BTD, pooled_BD

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        prompt_BTD, pooled_BD = told
        batch, _, height, width = noisy_BCHW.shape
        # The whole picture counts as its own size: height before width, no crop (Podell et al. 2023, section 2.2).
        size = [8.0 * height, 8.0 * width]
        return {
            "sample": noisy_BCHW,
            "timestep": timesteps_B,
            "encoder_hidden_states": prompt_BTD,
            "added_cond_kwargs": {
                "text_embeds": pooled_BD,
                "time_ids": torch.tensor([[*size, 0.0, 0.0, *size]] * batch),
            },
        }


def _kept(timesteps_B: Tensor) -> Tensor:
    """abar_t."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return (1 - betas).cumprod(0)[timesteps_B].view(-1, 1, 1, 1)
