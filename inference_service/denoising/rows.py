"""A row is one image on its way through the engine; a job is the request that its rows belong to.

Shapes: C channels, H/W height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from base_models.family import Conditioning
from inference_service.denoising.outfits import Outfit, OutfitKey, fits_slots, key_of
from inference_service.denoising.trajectories import Step, Trajectory
from inference_service.engine import EngineEvent
from inference_service.generation import GenerationRequest, ImageTask


@dataclass(frozen=True)
class RowGroup:
    """What rows of one forward pass have in common."""

    shape: tuple[int, ...]
    """Of their latents."""
    outfit: OutfitKey | None
    """What all of them wear; None: anything that fits slots."""


@dataclass(eq=False)
class Job:
    """A request in the engine. `tell` may be called from any thread and hands an exception to who waits for it."""

    request: GenerationRequest
    outfit: Outfit
    tell: Callable[[EngineEvent | Exception], None]
    is_abandoned: bool = False
    """Nobody waits any more. Set by any thread; the engine looks at it before every step."""

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.is_abandoned = True
        self.tell(error)


@dataclass(frozen=True, eq=False)
class Kept:
    """A picture of which a part is drawn anew: its latents, the image's own noise, and a mask: 1 in that part."""

    picture_CHW: Tensor
    noise_CHW: Tensor
    mask_1HW: Tensor


@dataclass(eq=False)
class Row:
    """What is known of an image between two steps. Only the step loop changes it."""

    job: Job
    task: ImageTask
    path: Trajectory
    conditioning: Conditioning
    unconditional: Conditioning | None
    """Of the negative prompt; None: no guidance, so one row of the forward pass instead of two."""
    latents_CHW: Tensor
    kept: Kept | None
    last_clean_CHW: Tensor | None = field(default=None)
    """The picture that the step before saw in the latents."""
    place: int = 0
    """Steps completed."""

    @property
    def group(self) -> RowGroup:
        """Rows of one size share a forward pass, whatever they wear, as long as it fits slots."""
        outfit = self.job.outfit
        return RowGroup(tuple(self.latents_CHW.shape), None if fits_slots(outfit) else key_of(outfit))

    @property
    def step_work(self) -> float:
        """Latent positions that one step puts through the network."""
        _, height, width = self.latents_CHW.shape
        return float(height * width * (1 if self.unconditional is None else 2))

    @property
    def remaining_work(self) -> float:
        """Of the steps before it."""
        return self.step_work * (len(self.path.steps) - self.place)

    @property
    def next_step(self) -> Step:
        """The one it waits for."""
        return self.path.steps[self.place]

    @property
    def is_preview_due(self) -> bool:
        """Whether its caller wants to see what it looks like now."""
        every = self.job.request.preview_every
        return every > 0 and self.place % every == 0 and not self.is_finished

    @property
    def is_finished(self) -> bool:
        """Whether all steps are completed."""
        return self.place == len(self.path.steps)
