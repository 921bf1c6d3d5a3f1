"""What `generate` may be asked for beside prompts, adapters and seeds, declared once for both clients."""

from typing import TypedDict

from personae.pictures import Source
from personae.vocabulary import Delivery, ImageFormat, Scheduler


class GenerationOptions(TypedDict, total=False):
    """Keyword arguments of `generate`. What is not there, or None, is the base model's or the server's own choice."""

    images_per_prompt: int | None
    """Images for each prompt that has no seeds, 1 to 64. Default: 1."""
    base_model: str
    """Default: that of the first adapter, else the server's first."""
    negative_prompt: str
    """What to avoid, for all prompts."""
    guidance_scale: float | None
    """How closely to follow the prompt, 1 (not at all, and twice as fast) to 30."""
    steps: int | None
    """Denoising steps, 1 to 150."""
    scheduler: Scheduler | None
    """How the noise is removed."""
    width: int | None
    """In pixels, in the base model's steps and limits."""
    height: int | None
    """Likewise."""
    image_format: ImageFormat
    """Of the files. Default: `png`."""
    start: Source | None
    """A picture to start from instead of noise: a path, a file's bytes, a Pillow image, or the full name of one in a
    dataset."""
    strength: float | None
    """How far images may leave `start`, above 0 to 1. Default: 0.8; with a mask, 1."""
    mask: Source | None
    """A picture of the proportions of `start`: only what is white in it is drawn anew."""
    delivery: Delivery
    """`bucket` leaves the files there, at `Image.uri`, for programs with credentials of it. Default: `inline`."""
    preview_every: int
    """Denoising steps from one preview of an image to the next, where `on_preview` is given. Default: 5."""
