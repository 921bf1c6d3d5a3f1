"""Picture files that came from outside: opened, judged, decoded, turned upright and brought into one mode.

Its one rule: nothing is decoded before its header has been judged, and nothing but pixels survives.
"""

import io
from enum import StrEnum

import numpy as np
from PIL import Image, UnidentifiedImageError

_MAX_METADATA_BYTES = 4 * 1024 * 1024
_ORIENTATION = 0x0112
# What turns a picture of this EXIF orientation upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The share by which the proportions of a mask may differ from its picture's: both were rounded to pixels.
_PROPORTIONS_OFF = 0.01
# A mask that is nowhere at least this bright marks nothing.
WHITE = 128


class Flaw(StrEnum):
    """What is wrong with a file that is not decoded, or cannot be."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    PIXELS_EXCEEDED = "pixels_exceeded"
    ANIMATED = "animated"
    METADATA_TOO_LARGE = "metadata_too_large"


class PictureRefused(Exception):
    """A file that is not used. The text says what was found and what is allowed."""

    def __init__(self, flaw: Flaw, detail: str) -> None:
        super().__init__(detail)
        self.flaw, self.detail = flaw, detail


def opened(body: bytes, formats: tuple[str, ...], formats_in_words: str, max_pixels: int) -> Image.Image:
    """A file whose header could be read, in one of Pillow's `formats`; not judged yet. Raises PictureRefused."""
    try:
        return Image.open(io.BytesIO(body), formats=formats)
    except UnidentifiedImageError:
        raise PictureRefused(Flaw.UNSUPPORTED_FORMAT, f"not a {formats_in_words} file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise PictureRefused(Flaw.PIXELS_EXCEEDED, f"allowed are {max_pixels:,} pixels") from None
    except ValueError as error:
        # Pillow bounds what compressed text chunks may unpack to.
        raise PictureRefused(Flaw.METADATA_TOO_LARGE, f"a text block is too large: {error}") from None
    except (OSError, SyntaxError) as error:
        raise PictureRefused(Flaw.TRUNCATED, f"its header cannot be read: {error}") from None


def judge_header(image: Image.Image, max_pixels: int) -> None:
    """Raise PictureRefused where decoding would cost too much, or would not give one picture."""
    width, height = image.size
    if width * height > max_pixels:
        raise PictureRefused(
            Flaw.PIXELS_EXCEEDED,
            f"found {width} x {height} = {width * height:,} pixels; allowed are {max_pixels:,}",
        )
    # A phone's MPO holds a second view or a depth map behind an ordinary JPEG; its first frame is the picture.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise PictureRefused(Flaw.ANIMATED, f"found {image.n_frames} frames; allowed is 1")  # type: ignore[attr-defined]
    metadata_bytes = sum(len(value) for value in image.info.values() if isinstance(value, bytes | str))
    if metadata_bytes > _MAX_METADATA_BYTES:
        raise PictureRefused(
            Flaw.METADATA_TOO_LARGE, f"found {metadata_bytes:,} bytes; allowed are {_MAX_METADATA_BYTES:,}"
        )


def decode(image: Image.Image) -> None:
    """Decode a file whose header was judged. Raises PictureRefused."""
    try:
        image.load()
    # A RuntimeError is libheif's, and so is a ValueError that is not of a PNG.
    except (OSError, SyntaxError, RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and image.format == "PNG":
            raise PictureRefused(Flaw.METADATA_TOO_LARGE, f"a text block is too large: {error}") from None
        raise PictureRefused(Flaw.TRUNCATED, f"cannot be decoded: {error}") from None


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none; `TURNS` says what to do about it."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    # Pillow raises whatever it stumbles over in an EXIF block that is broken; the pixels are none the worse for it.
    except Exception:
        return 1


def upright(image: Image.Image) -> Image.Image:
    """A decoded picture the way it is looked at."""
    turn = TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def in_mode(image: Image.Image, mode: str, background: str) -> Image.Image:
    """A decoded picture in `RGB` or `L`; what is transparent shows the background, a colour."""
    return image if image.mode == mode else _rgb(image, background).convert(mode)


def _rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values at 255.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, background), layered).convert("RGB")
    return image.convert("RGB")


def same_proportions(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a mask of one size, (width, height), may belong to a picture of the other."""
    across, along = size[0] * other[1], size[1] * other[0]
    return abs(across - along) <= _PROPORTIONS_OFF * max(across, along)
