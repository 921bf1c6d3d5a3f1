"""What the families with a UNet share: latents of an autoencoder, a discrete noise schedule, where a LoRA goes.

Its one rule: the autoencoder is computed in float32 whatever autocast says, because SDXL's overflows in float16.

Shapes: B batch, C channels, H/W height and width. Pixels are in [-1, 1].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from base_models.catalog import BaseModelEntry, TargetsName
from base_models.family import Conditioning
from base_models.lora_targets import TARGETS
from base_models.pipelines import adaptable_modules, load_pipeline

_TEXT_ENCODER_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]


class UNetDiffusion(ABC):
    """See BaseModel. A family adds what a prompt becomes, and how its UNet is told."""

    def __init__(self, entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights of this dtype. Training stores float32 and casts what it computes."""
        self._entry = entry
        self.digest = entry.digest()
        self.device = device
        self.pipeline = load_pipeline(entry, device, dtype)
        self.pipeline.vae.float()
        self.denoiser = self.pipeline.unet.to(memory_format=torch.channels_last)
        self.adaptable = adaptable_modules(self.pipeline)
        self.scheduler_config = dict(self.pipeline.scheduler.config)
        self._noise = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        self.prediction = self._noise.config.prediction_type
        self._alphas_cumprod = self._noise.alphas_cumprod.to(device)

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning: ...

    @abstractmethod
    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor: ...

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        factor = self.pipeline.vae_scale_factor
        return self.denoiser.config.in_channels, height // factor, width // factor

    def encode_images(self, pixels_BCHW: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            encoded = self.pipeline.vae.encode(pixels_BCHW.to(self.device).float())
        # AutoencoderTiny has no posterior.
        latents_BCHW = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents_BCHW * self.pipeline.vae.config.scaling_factor

    def decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            return self.pipeline.vae.decode(latents_BCHW.float() / self.pipeline.vae.config.scaling_factor).sample

    def timesteps(self, uniform_B: Tensor) -> Tensor:
        return (uniform_B * self._noise.config.num_train_timesteps).long()

    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return self._noise.add_noise(latents_BCHW, noise_BCHW, timesteps_B)

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        if self.prediction == "v_prediction":
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

        latents_BCHW = self.pipeline(
            list(prompts),
            # SDXL's pipeline has zeros in its place where it is not given; here it is encoded like any text.
            negative_prompt=[""] * len(prompts),
            width=size,
            height=size,
            num_inference_steps=self._entry.generation.steps,
            guidance_scale=self._entry.generation.guidance_scale,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
        with torch.no_grad():
            return self.decode_latents(latents_BCHW).clamp(-1, 1)

    def lora_modules(self, targets: TargetsName) -> list[str]:
        return TARGETS[targets]

    def text_encoder_lora_modules(self) -> list[str]:
        return _TEXT_ENCODER_ATTENTION
