"""Pictures that a service drew: their files and what can be done with them, where they came from, how far one is."""

import io
from dataclasses import dataclass, field
from datetime import datetime
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
        """For notebooks: a PNG file as it is, and a WebP file, which not all of them show, as one."""
        if not (self.content.startswith(b"RIFF") and self.content[8:12] == b"WEBP"):
            return self.content if self.content.startswith(b"\x89PNG") else None
        file = io.BytesIO()
        self.picture().save(file, "PNG")
        return file.getvalue()

    def _repr_jpeg_(self) -> bytes | None:
        """For notebooks: a JPEG file as it is."""
        return self.content if self.content.startswith(b"\xff\xd8\xff") else None


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
    """The file; empty when `filtered`, and when it lies at `uri`."""
    digest: str
    """SHA-256 (hex) of the file."""
    filtered: bool
    """True when a checker refused the image; there is no file then."""
    uri: str = ""
    """`s3://bucket/key`: where the file lies, when it was asked for in the bucket."""


@dataclass(frozen=True)
class Preview(EncodedImage):
    """What an image looks like so far: a small JPEG file. The operator's checker has not seen it."""

    index: int
    """That of the Image it will be."""
    completed_steps: int
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter version that an image was made with."""

    name: str
    weight: float
    digest: str
    """SHA-256 (hex) of its file."""


@dataclass(frozen=True)
class ImageOrigin:
    """Where an image came from, as the service recorded it."""

    generation: str
    create_time: datetime
    adapters: tuple[AppliedAdapter, ...]
    base_model: str
    base_model_digest: str
    """SHA-256 (hex) over its weight files."""


@dataclass(frozen=True)
class MadeImage:
    """An image that was made with an adapter, or from a dataset's pictures."""

    digest: str
    """SHA-256 (hex) of its file: what `look_up_image` finds it by."""
    project: str
    """The id of the project that asked for it."""
    generation: str
    uri: str
    """Where it lies in the bucket; empty where it was sent to its caller only."""


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
