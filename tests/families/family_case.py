"""What the tests of every family need to know of one: how to make a small copy, and how plain diffusers is asked.

Its one rule: a case speaks to diffusers alone; nothing of the family's own code stands behind what it is compared with.

Shapes: B batch, C channels, H/W height and width of latents.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from base_models.adapters.adapter_export import KeyNames
from base_models.family import LatentShape
from base_models.traits.family_traits import SchedulerName, TargetsName
from inference_service.generation import GenerationRequest


class FamilyCase(ABC):
    """A family."""

    name: str
    adapted: Mapping[str, list[str]]
    """Layers that random adapters change, by part: all that a training may."""
    read_by_diffusers: Sequence[KeyNames] = ("diffusers",)
    """The names of our exports that its `load_lora_weights` knows, of a small copy too: some of its converters have the
    published widths written into them."""
    negative_prompt: str = "blue"
    """Of guided pictures: one that its pipeline can be told."""
    size: int = 64
    """A side of the pictures of the tests, in pixels."""
    scheduler: SchedulerName = "euler"
    """The pipeline's own."""
    trained: TargetsName = "all"
    """What the training of the tests adapts: linear layers."""
    from_picture: str | None = None
    """diffusers' pipeline that starts from a picture, where it has one."""
    without: Mapping[str, None] = MappingProxyType({})
    """Parts that the folder lacks, as `from_pretrained` wants to be told."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write a small random copy, of the classes of the published model."""

    @abstractmethod
    def options(self, request: GenerationRequest) -> dict[str, Any]:
        """What the pipeline is told of a request's guidance."""

    @abstractmethod
    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        """What the pipeline makes of prompts."""

    @abstractmethod
    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        """Latents_BCHW of pictures, as the steps have them."""

    @abstractmethod
    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """What the denoiser sees in training."""

    @abstractmethod
    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        """What it should say."""

    @abstractmethod
    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        """Arguments of the denoiser in training, where the guidance scale that it is told, if any, is 1."""

    @abstractmethod
    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        """The denoiser's output, BCHW."""

    def latents(self, pipeline: Any, images: Tensor, shape: LatentShape) -> Tensor:
        """Latents_BCHW as the steps have them, of what the pipeline returns as latents."""
        return images


class FlowCase(FamilyCase):
    """A family with a rectified flow (Esser et al. 2024): x = (1 - sigma) x_0 + sigma e, v = e - x_0."""

    def noisy(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        sigmas_B111 = (timesteps_B / 1000).view(-1, 1, 1, 1)
        return (1 - sigmas_B111) * latents_BCHW + sigmas_B111 * noise_BCHW

    def target(self, latents_BCHW: Tensor, noise_BCHW: Tensor, timesteps_B: Tensor) -> Tensor:
        return noise_BCHW - latents_BCHW

    @abstractmethod
    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        """Equation 23's factor for pictures of so many pixels. scheduler: its configuration."""
