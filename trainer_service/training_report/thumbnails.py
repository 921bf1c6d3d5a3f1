"""Pictures small enough for a page, as data URIs. The same picture gives the same bytes."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

MAX_SIDE_PX = 256
_MAX_PNG_BYTES = 16 * 1024
_WEBP_QUALITY = 85


@dataclass(frozen=True)
class Thumbnail:
    """A picture in a page. `width` and `height` are its own, in pixels, before it was made small."""

    uri: str
    width: int
    height: int


def thumbnail(picture: Image.Image) -> Thumbnail:
    """Within 256 x 256 pixels: a PNG where that is small, as of drawings, else a WebP of some 20 KiB."""
    width, height = picture.size
    small = picture.convert("RGB")
    small.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
    file, media_type = io.BytesIO(), "image/png"
    small.save(file, "PNG", optimize=True)
    if file.tell() > _MAX_PNG_BYTES:
        file, media_type = io.BytesIO(), "image/webp"
        small.save(file, "WEBP", quality=_WEBP_QUALITY)
    return Thumbnail(f"data:{media_type};base64,{base64.b64encode(file.getvalue()).decode()}", width, height)
