"""The picture doctor: is this file a picture that a training can use, and what does it look like upright, in RGB?

Its one rule: nothing is decoded before its header has been judged, and nothing but pixels survives.
"""

import hashlib
import io
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
MIN_SIDE = 32
MAX_ASPECT = 4.0
# Larger pictures are scaled down before they are stored; no base model trains on more.
MAX_STORED_SIDE = 2048
_MAX_METADATA_BYTES = 4 * 1024 * 1024
# A picture whose values differ by less in every channel, once shrunk, shows nothing.
_BLANK_RANGE = 12
_FORMATS = ("JPEG", "PNG", "WEBP")


class Rejection(StrEnum):
    """Why a picture is not used."""

    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    PIXELS_EXCEEDED = "pixels_exceeded"
    ANIMATED = "animated"
    TOO_SMALL = "too_small"
    ASPECT = "aspect"
    BLANK = "blank"
    METADATA_TOO_LARGE = "metadata_too_large"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Finding:
    """What the doctor says of one file. `png` holds the picture to store, unless it was rejected."""

    rejection: Rejection | None = None
    detail: str = ""
    width: int = 0
    height: int = 0
    source_format: str = ""
    conversions: tuple[str, ...] = ()
    png: bytes = b""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the stored picture; equal pixels have equal digests."""
        return hashlib.sha256(self.png).hexdigest() if self.png else ""


class _Rejected(Exception):
    def __init__(self, rejection: Rejection, detail: str) -> None:
        self.rejection, self.detail = rejection, detail


def examine(body: bytes) -> Finding:
    """Judge a file and, where it is usable, give the picture to store: upright RGB, no metadata, bounded in size."""
    source_format, width, height = "", 0, 0
    try:
        with _opened(body) as image:
            source_format = "JPEG" if image.format == "MPO" else str(image.format)
            width, height = image.size
            _judge_header(image)
            conversions: list[str] = []
            picture = _normalised(_decoded(image), conversions)
        width, height = picture.size
        _judge_pixels(picture)
    except _Rejected as rejected:
        return Finding(rejected.rejection, rejected.detail, width, height, source_format)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Finding(
        width=width, height=height, source_format=source_format, conversions=tuple(conversions), png=file.getvalue()
    )


def _opened(body: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(body), formats=_FORMATS)
    except UnidentifiedImageError:
        raise _Rejected(Rejection.UNSUPPORTED_FORMAT, "not a JPEG, PNG or WebP file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _Rejected(Rejection.PIXELS_EXCEEDED, f"allowed are {MAX_PIXELS:,} pixels") from None
    except ValueError as error:
        # Pillow bounds what compressed text chunks may unpack to.
        raise _Rejected(Rejection.METADATA_TOO_LARGE, f"a text block is too large: {error}") from None
    except (OSError, SyntaxError) as error:
        raise _Rejected(Rejection.TRUNCATED, f"its header cannot be read: {error}") from None


def _judge_header(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _Rejected(
            Rejection.PIXELS_EXCEEDED,
            f"found {width} x {height} = {width * height:,} pixels; allowed are {MAX_PIXELS:,}",
        )
    # A phone's MPO holds a second view or a depth map behind an ordinary JPEG; its first frame is the picture.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _Rejected(Rejection.ANIMATED, f"found {image.n_frames} frames; allowed is 1")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _Rejected(Rejection.ASPECT, f"found {width} x {height}; one side may be {MAX_ASPECT:g} times the other")
    if min(width, height) < MIN_SIDE:
        raise _Rejected(Rejection.TOO_SMALL, f"found {width} x {height}; allowed is {MIN_SIDE} pixels a side or more")
    metadata_bytes = sum(len(value) for value in image.info.values() if isinstance(value, bytes | str))
    if metadata_bytes > _MAX_METADATA_BYTES:
        raise _Rejected(
            Rejection.METADATA_TOO_LARGE, f"found {metadata_bytes:,} bytes; allowed are {_MAX_METADATA_BYTES:,}"
        )


def _decoded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except ValueError as error:
        raise _Rejected(Rejection.METADATA_TOO_LARGE, f"a text block is too large: {error}") from None
    except (OSError, SyntaxError) as error:
        raise _Rejected(Rejection.TRUNCATED, f"cannot be decoded: {error}") from None
    return image


def _normalised(image: Image.Image, conversions: list[str]) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.size != image.size or image.getexif().get(0x0112, 1) != 1:
        conversions.append("EXIF orientation applied")
    if upright.mode != "RGB":
        conversions.append(f"{_mode_in_words(upright)} converted to RGB")
        upright = _rgb(upright)
    if max(upright.size) > MAX_STORED_SIDE:
        conversions.append(f"scaled down from {upright.width} x {upright.height}")
        upright = ImageOps.contain(upright, (MAX_STORED_SIDE, MAX_STORED_SIDE), Image.Resampling.LANCZOS)
    # A fresh image carries no EXIF, GPS, profile or comment along.
    clean = Image.new("RGB", upright.size)
    clean.paste(upright)
    return clean


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values at 255.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def _mode_in_words(image: Image.Image) -> str:
    if image.has_transparency_data:
        return "transparency on white"
    words = {"L": "grey", "P": "palette", "1": "black and white", "I": "16-bit grey"}
    return "16-bit grey" if image.mode.startswith("I;16") else words.get(image.mode, image.mode)


def _judge_pixels(picture: Image.Image) -> None:
    # BOX, because sharper filters ring and would make a blank picture look busy.
    shrunk = picture.resize((32, 32), Image.Resampling.BOX)
    if all(highest - lowest < _BLANK_RANGE for lowest, highest in shrunk.getextrema()):
        raise _Rejected(Rejection.BLANK, "the picture is practically one colour")
