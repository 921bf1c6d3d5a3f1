"""The Stable Diffusion family (1.x, 2.x and the bundled toon-64): CLIP text encoder, UNet, epsilon or v prediction.

Shapes: B batch, C channels, H/W height and width, T tokens, D features. Pixels are in [-1, 1].
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from base_models.catalog import BaseModelEntry, TargetsName
from base_models.family import Conditioning

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_CONVOLUTION = ["conv1", "conv2", "conv_shortcut"]
_ROUND_ATTENTION = ["ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
_TARGETS: dict[TargetsName, list[str]] = {
    "attention": _ATTENTION,
    "attention_and_convolution": [*_ATTENTION, *_CONVOLUTION],
    "all": [*_ATTENTION, *_CONVOLUTION, *_ROUND_ATTENTION, "conv_in", "conv_out"],
}
_TEXT_ENCODER_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]


def load_pipeline(entry: BaseModelEntry, device: torch.device, dtype: torch.dtype) -> StableDiffusionPipeline:
    """The plain diffusers pipeline, frozen, on the device. No pickle is read and nothing is fetched."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    verbosity = diffusers_logging.get_verbosity()
    # An AutoencoderTiny in the place of an AutoencoderKL draws a notice at every load; it is meant to be there.
    diffusers_logging.set_verbosity_error()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            entry.folder, dtype=dtype, use_safetensors=True, local_files_only=True, safety_checker=None
        )
    finally:
        diffusers_logging.set_verbosity(verbosity)
    pipeline.set_progress_bar_config(disable=True)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.requires_grad_(False).eval()
    return pipeline.to(device)


def adaptable_modules(pipeline: StableDiffusionPipeline) -> dict[str, torch.nn.Module]:
    """See BaseModel.adaptable. The prefixes are those of diffusers' `load_lora_weights`."""
    return {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}


def without_weights(module: torch.nn.Module) -> torch.nn.Module:
    """A module of the same architecture that takes no memory: what adapter files can be checked against."""
    with torch.device("meta"):
        if isinstance(module, UNet2DConditionModel):
            return UNet2DConditionModel.from_config(module.config)
        return type(module)(module.config)


class StableDiffusion:
    """See BaseModel."""

    def __init__(self, entry: BaseModelEntry, device: torch.device) -> None:
        """Load float32 weights; training casts what it computes, not what it stores."""
        self._entry = entry
        self.digest = entry.digest()
        self.device = device
        self.pipeline = load_pipeline(entry, device, torch.float32)
        self.denoiser = self.pipeline.unet.to(memory_format=torch.channels_last)
        self.adaptable = adaptable_modules(self.pipeline)
        self.scheduler_config = dict(self.pipeline.scheduler.config)
        self._noise = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        self.prediction = self._noise.config.prediction_type
        self._alphas_cumprod = self._noise.alphas_cumprod.to(device)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        tokens = self.pipeline.tokenizer(list(prompts), padding="max_length", return_tensors="pt").input_ids
        return {"prompt_BTD": self.pipeline.text_encoder(tokens.to(self.device))[0]}

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        factor = self.pipeline.vae_scale_factor
        return self.denoiser.config.in_channels, height // factor, width // factor

    def encode_images(self, pixels_BCHW: Tensor) -> Tensor:
        encoded = self.pipeline.vae.encode(pixels_BCHW.to(self.device))
        # AutoencoderTiny has no posterior.
        latents_BCHW = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents_BCHW * self.pipeline.vae.config.scaling_factor

    def decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        return self.pipeline.vae.decode(latents_BCHW / self.pipeline.vae.config.scaling_factor).sample

    def timesteps(self, uniform_B: Tensor) -> Tensor:
        return (uniform_B * self._noise.config.num_train_timesteps).long()

    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return self._noise.add_noise(latents_BCHW, noise_BCHW, timesteps_B)

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        noisy_BCHW = noisy_BCHW.contiguous(memory_format=torch.channels_last)
        return self.denoiser(noisy_BCHW, timesteps_B, conditioning["prompt_BTD"]).sample

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        if self._noise.config.prediction_type == "v_prediction":
            return self._noise.get_velocity(latents_BCHW, noise_BCHW, timesteps_B)
        return noise_BCHW

    def snr(self, timesteps_B: Tensor) -> Tensor:
        alphas_B = self._alphas_cumprod[timesteps_B]
        return alphas_B / (1 - alphas_B)

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: int, between_steps: Callable[[], None] = lambda: None
    ) -> Tensor:
        def after_step(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            between_steps()
            return tensors

        pictures_BCHW = self.pipeline(
            list(prompts),
            width=size,
            height=size,
            num_inference_steps=self._entry.generation.steps,
            guidance_scale=self._entry.generation.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
            callback_on_step_end=after_step,
        ).images
        return pictures_BCHW.float() * 2 - 1

    def lora_modules(self, targets: TargetsName) -> list[str]:
        return _TARGETS[targets]

    def text_encoder_lora_modules(self) -> list[str]:
        return _TEXT_ENCODER_ATTENTION
