"""What a generation tells its caller.

Accepted, perhaps Queued, then Progress, PreviewFile and FinishedImage, last Done.
"""

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
class PreviewFile:
    """What an image looks like so far, as a small JPEG file."""

    task: ImageTask
    completed_steps: int
    content: bytes


@dataclass(frozen=True)
class FinishedImage:
    """A finished image as a file. `digest` is the SHA-256 (hex) of the file; sizes are in pixels.

    Exactly one of `content` and `uri` says where the file is. Where a checker refused the image, there is no file and
    all four are empty.
    """

    task: ImageTask
    width: int
    height: int
    media_type: str = ""
    digest: str = ""
    content: bytes = b""
    uri: str = ""

    @property
    def filtered(self) -> bool:
        """Whether a checker refused it."""
        return not self.digest


@dataclass(frozen=True)
class Done:
    """Every image has been sent; `image_count` counts filtered ones too."""

    image_count: int
    queue_s: float
    generation_s: float


Event = Accepted | Queued | Progress | PreviewFile | FinishedImage | Done
