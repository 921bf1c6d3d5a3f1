"""What a base-model family is to the training loop and to the denoising engine.

A family is one file that implements `BaseModel`; the loop and the engine know not how one differs from another.

Shapes: B batch, C channels, H/W height and width, T tokens, D features. Pixels are in [-1, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from base_models.traits.family_traits import TargetsName

Prediction = Literal["epsilon", "v_prediction", "flow"]
Conditioning = dict[str, Tensor]
"""What the denoiser is told about a prompt: named tensors, batch first, so that rows can be gathered and mixed.

Where a network was distilled to be told a guidance scale, `guidance_B` is among them: 1, as for training; who draws
puts the request's in its place. Where prompts differ in length, they are filled up, and `is_token_BT` says what counts.
"""
LatentShape = tuple[int, int, int]
"""C, H, W of latents."""


def shape_of(latents_BCHW: Tensor) -> LatentShape:
    """The shape of each of a batch."""
    _, channels, height, width = latents_BCHW.shape
    return channels, height, width


def told_scale(conditioning: Conditioning, scale: float) -> Conditioning:
    """The same with this guidance scale, where the network is told one."""
    known_B = conditioning.get("guidance_B")
    return conditioning if known_B is None else conditioning | {"guidance_B": torch.full_like(known_B, scale)}


class BaseModel(Protocol):
    """A loaded base model. All methods run where `device` is, under the caller's grad and autocast modes."""

    digest: str
    """SHA-256 (hex) over the weight files."""
    device: torch.device
    denoiser: torch.nn.Module
    """The network that LoRA layers are added to; frozen."""
    adaptable: Mapping[str, torch.nn.Module]
    """Modules that adapters may change, by what their keys begin with in an adapter file; the denoiser first."""
    prediction: Prediction
    """What the denoiser predicts."""
    scheduler_config: Mapping[str, Any]
    """Of the scheduler that it was published with, as diffusers' classes take it, its `_class_name` included."""

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Conditioning of B prompts. Prompts that are too long were refused before; they are not cut here."""
        ...

    def make_room(self) -> None:
        """Have parts leave the device that are used now and then, where the model was placed so; they come back when
        they are used."""
        ...

    def latent_shape(self, width: int, height: int) -> LatentShape:
        """Shape of the latents of a picture with this size in pixels."""
        ...

    def encode_images(self, pixels_BCHW: Tensor) -> Tensor:
        """Latents_BCHW of pixels_BCHW: the mean of the posterior where there is one, so that it can be cached."""
        ...

    def decode_latents(self, latents_BCHW: Tensor) -> Tensor:
        """Pixels_BCHW of latents_BCHW."""
        ...

    def timesteps(self, uniform_B: Tensor, shape: LatentShape) -> Tensor:
        """Training timesteps_B of latents of this shape, from uniform numbers in [0, 1): the family's density."""
        ...

    def add_noise(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """Noisy latents_BCHW at the given timesteps."""
        ...

    def predict(self, noisy_BCHW: Tensor, timesteps_B: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's raw prediction_BCHW; every row may have its own timestep."""
        ...

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """What `predict` should have said."""
        ...

    def guide(self, with_prompt_BCHW: Tensor, without_BCHW: Tensor, scale_B111: Tensor) -> Tensor:
        """Both of a row's predictions as one: classifier-free guidance, in the way of the family's pipeline."""
        ...

    def schedule(self, shape: LatentShape, step_count: int) -> Mapping[str, Any]:
        """What a scheduler's `set_timesteps` is given to draw latents of this shape in so many steps."""
        ...

    def snr(self, timesteps_B: Tensor) -> Tensor:
        """Signal-to-noise ratios_B at the given timesteps: of the variances of picture and noise."""
        ...

    def generate(
        self, prompts: Sequence[str], seeds: Sequence[int], size: int, between_steps: Callable[[], None] = lambda: None
    ) -> Tensor:
        """Pixels_BCHW, float32: a square picture for each prompt and its seed, with the base model's default settings.

        `between_steps` is called after every denoising step and may raise to interrupt.
        """
        ...

    def lora_modules(self, targets: TargetsName) -> list[str]:
        """Name endings of the denoiser's modules that get a LoRA."""
        ...

    def text_encoder_lora_modules(self) -> list[str]:
        """Name endings of the text encoders' modules that get a LoRA where they are trained too: their attention."""
        ...
