"""What a generation tells its caller: Accepted, perhaps Queued, then Progress and FinishedImage, last Done."""

from dataclasses import dataclass

from inference_service.generation import GenerationRequest, ImageTask


@dataclass(frozen=True)
class Accepted:
    """The request is valid and admitted; nothing has been computed yet. Its adapters carry their versions."""

    generation: str
    request: GenerationRequest


@dataclass(frozen=True)
class Queued:
    """Images of others that were admitted before."""

    images_ahead: int


@dataclass(frozen=True)
class Progress:
    """How far one group of images is; `indices` are those of their tasks. 0 steps: the group has begun."""

    indices: tuple[int, ...]
    completed_steps: int
    total_steps: int


@dataclass(frozen=True)
class FinishedImage:
    """A finished image as a file. `digest` is the SHA-256 (hex) of `content`; sizes are in pixels."""

    task: ImageTask
    content: bytes
    media_type: str
    width: int
    height: int
    digest: str


@dataclass(frozen=True)
class Done:
    """Every image has been sent."""

    image_count: int
    queue_s: float
    generation_s: float


Event = Accepted | Queued | Progress | FinishedImage | Done
