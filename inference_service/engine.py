"""The engine's port: whatever denoises. It takes generations that were admitted, with their adapters read and checked.

Its one rule: an image depends on its request, prompt and seed, never on who shared a batch with it.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from inference_service.events import Progress
from inference_service.generation import GenerationRequest, ImageTask
from service_kit.names import AdapterVersionName

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class HostAdapter:
    """An adapter in host memory, checked against the engine's base model."""

    tensors: "Mapping[str, Tensor]"
    """By the names of its file; empty where the engine keeps them in a form of its own."""
    size_bytes: int
    """What it takes there."""


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter version to apply. `digest` is the SHA-256 (hex) of its file, so equal digests mean equal tensors."""

    name: AdapterVersionName
    digest: str
    weight: float
    content: HostAdapter


@dataclass(frozen=True)
class Picture:
    """A finished image as pixels_HWC, uint8 RGB."""

    task: ImageTask
    pixels_HWC: "NDArray[numpy.uint8]"


@dataclass(frozen=True)
class Preview:
    """What an image looks like so far: small pixels_HWC, uint8 RGB, of the image's proportions."""

    task: ImageTask
    completed_steps: int
    pixels_HWC: "NDArray[numpy.uint8]"


EngineEvent = Progress | Preview | Picture


class Engine(Protocol):
    """Denoises for one base model."""

    def read_adapter(self, body: bytes) -> HostAdapter:
        """An adapter file, checked against this engine's base model. Blocks; may be called from any thread.

        Raises base_models.adapters.adapter_file.AdapterInvalid.
        """
        ...

    def in_slots(self) -> frozenset[str]:
        """Digests of the adapters that the next step could use without a copy to the device. From any thread."""
        ...

    def generate(
        self, request: GenerationRequest, adapters: Sequence[AppliedAdapter]
    ) -> AsyncGenerator[EngineEvent, Any]:
        """Yield every image as it is finished, in any order, and Progress before the first step and after each.

        Where `request.preview_every` is not 0, also a Preview of each image after every so many steps but the last.

        Closing or cancelling the iteration frees the work within one denoising step; before the first step nothing is
        computed at all.
        """
        ...
