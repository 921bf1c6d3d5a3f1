"""What the tests of every family need to know of one: how to make a small copy, and how plain diffusers is asked.

Its one rule: a case speaks to diffusers alone; nothing of the family's own code stands behind what it is compared with.

Shapes: B batch, C channels, H/W height and width of latents.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from base_models.adapter_export import KeyNames
from base_models.family import LatentShape
from inference_service.generation import GenerationRequest


class FamilyCase(ABC):
    """A family with a flow and a transformer."""

    name: str
    adapted: Mapping[str, list[str]]
    """Layers that random adapters change, by part: all that a training may."""
    read_by_diffusers: Sequence[KeyNames] = ("diffusers",)
    """The names of our exports that its `load_lora_weights` knows."""
    negative_prompt: str = "blue"
    """Of guided pictures: one that its pipeline can be told."""
    size: int = 64
    """A side of the pictures of the tests, in pixels."""

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
    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        """Equation 23's factor for pictures of so many pixels. scheduler: its configuration."""

    @abstractmethod
    def forward(self, pipeline: Any, noisy_BCHW: Tensor, sigmas_B: Tensor, told: Any) -> dict[str, Any]:
        """Arguments of the denoiser for noise levels from 0 to 1, of a training: the guidance told to it is 1."""

    @abstractmethod
    def velocity(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        """Noise minus picture, BCHW, as the denoiser's output has it."""

    def latents(self, pipeline: Any, images: Tensor, shape: LatentShape) -> Tensor:
        """Latents_BCHW as the steps have them, of what the pipeline returns as latents."""
        return images
