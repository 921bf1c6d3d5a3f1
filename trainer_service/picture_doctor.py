"""The picture doctor: is this file a picture that a training can use, and what does it look like upright, in RGB?

Its one rule: nothing is decoded before its header has been judged, and nothing but pixels survives. Masks are examined
by the same rules.
"""

import hashlib
import io
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL import Image, ImageOps

from service_kit import picture_file
from service_kit.picture_file import WHITE, Flaw, PictureRefused
from trainer_service.heif import NEEDS, is_heif, register_heif
from trainer_service.near_duplicates import fingerprint
from trainer_service.sharpness import is_blurred

MAX_PIXELS = 64_000_000
MIN_SIDE = 32
MAX_ASPECT = 4.0
# Larger pictures are scaled down before they are stored; no base model trains on more.
MAX_STORED_SIDE = 2048
# Base models that train on more than this enlarge the picture.
SMALL_SIDE = 256
# A picture whose values differ by less in every channel, once shrunk, shows nothing.
_BLANK_RANGE = 12
FORMATS = ("JPEG", "PNG", "WEBP", *(["HEIF"] if register_heif() else []))
FORMATS_IN_WORDS = "JPEG, PNG, WebP or HEIC"


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
    NEAR_DUPLICATE = "near_duplicate"
    MASK_MISFIT = "mask_misfit"


class PictureWarning(StrEnum):
    """What may make a picture that is used worth less."""

    BLURRED = "blurred"
    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True)
class Finding:
    """What the doctor says of one file. `png` holds the picture to store, unless it was rejected.

    The source's size is the file's, before it was turned or scaled; a HEIC's is upright, as its container turns it.
    """

    rejection: Rejection | None = None
    detail: str = ""
    width: int = 0
    height: int = 0
    source_width: int = 0
    source_height: int = 0
    source_format: str = ""
    conversions: tuple[str, ...] = ()
    warnings: tuple[PictureWarning, ...] = ()
    fingerprint: str = ""
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
    finding, picture = _read(body, "RGB")
    if picture is None:
        return finding
    # BOX, because sharper filters ring and would make a blank picture look busy.
    shrunk = picture.resize((32, 32), Image.Resampling.BOX)
    if all(highest - lowest < _BLANK_RANGE for lowest, highest in shrunk.getextrema()):
        return _refused(finding, Rejection.BLANK, "the picture is practically one colour")
    warnings = (
        (PictureWarning.BLURRED, is_blurred(picture)),
        (PictureWarning.SMALL, min(picture.size) < SMALL_SIDE),
        (PictureWarning.LARGE, max(finding.source_width, finding.source_height) > MAX_STORED_SIDE),
    )
    return replace(
        finding,
        warnings=tuple(warning for warning, holds in warnings if holds),
        fingerprint=fingerprint(picture),
        png=_png(picture),
    )


def examine_mask(body: bytes) -> Finding:
    """Judge a mask and give the one to store: upright, grey, white where the subject is."""
    finding, mask = _read(body, "L")
    if mask is None:
        return finding
    if mask.getextrema()[1] < WHITE:  # type: ignore[operator]
        return _refused(finding, Rejection.BLANK, "the mask is white nowhere; white is where the subject is")
    return replace(finding, png=_png(mask))


def _read(body: bytes, mode: str) -> tuple[Finding, Image.Image | None]:
    """A file's picture in a mode, where it is usable, and what was found on the way there."""
    found = Finding()
    try:
        with _opened(body) as image:
            width, height = image.size
            found = replace(
                found,
                width=width,
                height=height,
                source_width=width,
                source_height=height,
                source_format="JPEG" if image.format == "MPO" else str(image.format),
            )
            picture_file.judge_header(image, MAX_PIXELS)
            _judge_shape(image)
            conversions: list[str] = []
            picture = _normalised(_decoded(image), mode, (width, height), conversions)
    except PictureRefused as refused:
        return _refused(found, Rejection(refused.flaw), refused.detail), None
    except _Rejected as rejected:
        return _refused(found, rejected.rejection, rejected.detail), None
    return replace(found, width=picture.width, height=picture.height, conversions=tuple(conversions)), picture


def _refused(finding: Finding, rejection: Rejection, detail: str) -> Finding:
    return replace(finding, rejection=rejection, detail=detail, conversions=())


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _opened(body: bytes) -> Image.Image:
    try:
        return picture_file.opened(body, FORMATS, FORMATS_IN_WORDS, MAX_PIXELS)
    except PictureRefused as refused:
        if refused.flaw is not Flaw.UNSUPPORTED_FORMAT or not is_heif(body):
            raise
        if "HEIF" not in FORMATS:
            raise PictureRefused(Flaw.UNSUPPORTED_FORMAT, NEEDS) from None
        raise PictureRefused(Flaw.TRUNCATED, "its header cannot be read") from None


def _judge_shape(image: Image.Image) -> None:
    width, height = image.size
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _Rejected(Rejection.ASPECT, f"found {width} x {height}; one side may be {MAX_ASPECT:g} times the other")
    if min(width, height) < MIN_SIDE:
        raise _Rejected(Rejection.TOO_SMALL, f"found {width} x {height}; allowed is {MIN_SIDE} pixels a side or more")


def _decoded(image: Image.Image) -> Image.Image:
    # A JPEG is decoded at the smallest of its scales (1, 1/2, 1/4, 1/8) that is still large enough to scale down from.
    image.draft(None, (MAX_STORED_SIDE, MAX_STORED_SIDE))
    picture_file.decode(image)
    return image


def _normalised(image: Image.Image, mode: str, source_size: tuple[int, int], conversions: list[str]) -> Image.Image:
    # pillow-heif has turned the picture already, and says how.
    if {picture_file.orientation(image), image.info.get("original_orientation")} & set(picture_file.TURNS):
        conversions.append("EXIF orientation applied")
    image = picture_file.upright(image)
    background = "black" if mode == "L" else "white"
    if image.mode != mode:
        conversions.append(f"{_mode_in_words(image, background)} converted to {'grey' if mode == 'L' else mode}")
        image = picture_file.in_mode(image, mode, background)
    if max(source_size) > MAX_STORED_SIDE:
        conversions.append(f"scaled down from {source_size[0]} x {source_size[1]}")
        image = ImageOps.contain(image, (MAX_STORED_SIDE, MAX_STORED_SIDE), Image.Resampling.LANCZOS)
    # A fresh image carries no EXIF, GPS, profile or comment along.
    clean = Image.new(mode, image.size)
    clean.paste(image)
    return clean


def _mode_in_words(image: Image.Image, background: str) -> str:
    if image.has_transparency_data:
        return f"transparency on {background}"
    words = {"L": "grey", "P": "palette", "1": "black and white", "I": "16-bit grey"}
    return "16-bit grey" if image.mode.startswith("I;16") else words.get(image.mode, image.mode)
