"""Pictures that a service drew: their files and what can be done with them, and how far a generation is."""

import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image as Pillow


class EncodedImage:
    """What can be done with the file of a picture."""

    content: bytes

    def save(self, path: str | Path) -> Path:
        """Write the file as it came, with the record of how it was made where it carries one."""
        path = Path(path)
        path.write_bytes(self.content)
        return path

    def picture(self) -> Pillow.Image:
        """The decoded picture."""
        with Pillow.open(io.BytesIO(self.content), formats=("PNG", "WEBP", "JPEG")) as picture:
            picture.load()
        return picture

    def _repr_png_(self) -> bytes | None:
        """For notebooks."""
        return self.content if self.content.startswith(b"\x89PNG") else None


@dataclass(frozen=True)
class Image(EncodedImage):
    """A generated image."""

    index: int
    """Position among the images asked for, counted over prompts and their seeds from 0."""
    prompt_index: int
    prompt: str
    seed: int
    """With the same prompt and settings it gives the same image again."""
    width: int
    height: int
    media_type: str
    content: bytes = field(repr=False)
    """The file; empty when `filtered`."""
    digest: str
    """SHA-256 (hex) of `content`."""
    filtered: bool
    """True when a checker refused the image."""


@dataclass(frozen=True)
class GenerationProgress:
    """How far a generation is."""

    finished: int
    """Images that have arrived."""
    total: int
    images_ahead: int
    """Other callers' images in the queue before the first of these; 0 once work has begun."""
    completed_steps: int
    """Denoising steps finished, of the group of images in work."""
    total_steps: int
