"""What all families share: a diffusers pipeline of which they use the parts, and latents of its autoencoder.

Its one rule: the autoencoder is computed in float32 whatever autocast says, because SDXL's overflows in float16.

Shapes: B batch, C channels, H/W height and width. Pixels are in [-1, 1].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.family import Conditioning, LatentShape, Prediction
from base_models.pipelines import adaptable_modules, load_pipeline
from base_models.traits.family_traits import TEXT_ENCODER_ATTENTION, TargetsName
from base_models.weights.group_offloading import by_groups
from base_models.weights.placement import AUTOENCODER, PlacementName
from base_models.weights.visiting_parts import VisitingParts


class PipelineModel(ABC):
    """See BaseModel. What is abstract here differs between families."""

    prediction: Prediction

    def __init__(self, entry: BaseModelEntry, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Load weights of this dtype, but for the autoencoder's."""
        self.entry = entry
        self.device = device
        if entry.is_quantised:
            # What quantised layers compute in.
            dtype = torch.bfloat16
        with ThreadPoolExecutor(1, thread_name_prefix="digest") as hashing:
            # Beside the loading, so that a disk is read once for both.
            digest = hashing.submit(entry.digest)
            self.pipeline = load_pipeline(entry, device, {"default": dtype, AUTOENCODER: torch.float32})
            self.digest = digest.result()
        self.adaptable = adaptable_modules(self.pipeline)
        self.denoiser: Any = self.adaptable[entry.traits.denoiser]
        self.scheduler_config = dict(self.pipeline.scheduler.config)
        self.visiting = VisitingParts({}, device, one_at_a_time=False)

    def place(self, device: torch.device, how: PlacementName) -> None:
        """Have a model that was loaded on the CPU compute on a device, to which only a part of its weights goes."""
        self.device = device
        parts = {name: part for name, part in self.pipeline.components.items() if isinstance(part, torch.nn.Module)}
        denoiser = self.entry.traits.denoiser
        if how == "group":
            for name in parts.keys() - {AUTOENCODER}:
                by_groups(parts[name], device, in_blocks=name == denoiser)
            visitors = {AUTOENCODER}
        else:
            self.denoiser.to(device)
            visitors = parts.keys() - {denoiser}
        self.visiting = VisitingParts({name: parts[name] for name in visitors}, device, how != "on_request")

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning: ...

    @abstractmethod
    def timesteps(self, uniform_B: Tensor, shape: LatentShape) -> Tensor: ...

    @abstractmethod
    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor: ...

    @abstractmethod
    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor: ...

    @abstractmethod
    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor: ...

    @abstractmethod
    def snr(self, timesteps_B: Tensor) -> Tensor: ...

    @abstractmethod
    def schedule(self, shape: LatentShape, step_count: int) -> Mapping[str, Any]: ...

    @abstractmethod
    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: int, between_steps: Callable[[], None] = lambda: None
    ) -> Tensor: ...

    def make_room(self) -> None:
        self.visiting.make_room()

    def latent_shape(self, width: int, height: int) -> LatentShape:
        factor = self.pipeline.vae_scale_factor
        return self.pipeline.vae.config.latent_channels, height // factor, width // factor

    def encode_images(self, pixels_BCHW: Tensor) -> Tensor:
        with self.visiting.used(AUTOENCODER), torch.autocast(self.device.type, enabled=False):
            return self.to_latents(pixels_BCHW.to(self.device).float())

    def decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        with self.visiting.used(AUTOENCODER), torch.autocast(self.device.type, enabled=False):
            return self.to_pixels(latents_BCHW.float())

    def to_latents(self, pixels_BCHW: Tensor) -> Tensor:
        """See `encode_images`; both are in float32 on the device."""
        encoded, config = self.pipeline.vae.encode(pixels_BCHW), self.pipeline.vae.config
        # AutoencoderTiny has no posterior.
        latents_BCHW = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (latents_BCHW - (config.get("shift_factor") or 0.0)) * config.scaling_factor

    def to_pixels(self, latents_BCHW: Tensor) -> Tensor:
        """See `decode_latents`; both are in float32 on the device."""
        config = self.pipeline.vae.config
        return self.pipeline.vae.decode(
            latents_BCHW / config.scaling_factor + (config.get("shift_factor") or 0.0)
        ).sample

    def guide(self, with_prompt_BCHW: Tensor, without_BCHW: Tensor, scale_B111: Tensor) -> Tensor:
        # Ho and Salimans 2022, equation 6, scale = 1 + w.
        return without_BCHW + scale_B111 * (with_prompt_BCHW - without_BCHW)

    def lora_modules(self, targets: TargetsName) -> list[str]:
        return self.entry.traits.targets[targets]

    def text_encoder_lora_modules(self) -> list[str]:
        return TEXT_ENCODER_ATTENTION
