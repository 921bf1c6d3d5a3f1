"""Files of start pictures and masks: decoded by the rules of uploads, upright, in one mode.

Its one rule: in the service the bytes of others are decoded by a Decoder, that is in limited child processes, and what
these send is pixels and their number alone.
"""

import logging
import struct
from collections.abc import Callable
from typing import Literal

from PIL import Image

from service_kit import picture_file
from service_kit.decoder import DecoderPool, DecodingSettings
from service_kit.picture_file import Flaw, PictureRefused

# Many requests may be decoding at once; no base model draws more.
MAX_PIXELS = 4096 * 4096
FORMATS = ("JPEG", "PNG", "WEBP")
# Of an answer: whether the file was refused, and width and height; what follows is why.
ANSWER_HEAD = struct.Struct(">?II")
_CHILD = "inference_service.decoder_child"
_MAX_DETAIL_BYTES = 1_000
_logger = logging.getLogger(__name__)

PictureKind = Literal["picture", "mask"]
Decode = Callable[[PictureKind, bytes], Image.Image]
"""The image of a file, RGB of a picture and L of a mask. Raises PictureRefused."""


def decode(kind: PictureKind, body: bytes) -> Image.Image:
    """See Decode. Here and now, which is for child processes and tests."""
    formats, words = (FORMATS, "JPEG, PNG or WebP") if kind == "picture" else (("PNG",), "PNG")
    mode, background = ("RGB", "white") if kind == "picture" else ("L", "black")
    with picture_file.opened(body, formats, words, MAX_PIXELS) as image:
        picture_file.judge_header(image, MAX_PIXELS)
        picture_file.decode(image)
        return picture_file.in_mode(picture_file.upright(image), mode, background)


class Decoder:
    """Decodes in child processes."""

    def __init__(self, settings: DecodingSettings) -> None:
        self._pool = DecoderPool(_CHILD, settings.limits, settings.decoder_children)

    def decode(self, kind: PictureKind, body: bytes) -> Image.Image:
        """See Decode. Raises TryLater or ServiceUnavailable besides, where no child process can be had."""
        mode, values = ("RGB", 3) if kind == "picture" else ("L", 1)
        head, pixels = self._pool.ask(kind, body, values * MAX_PIXELS)
        if len(head) >= ANSWER_HEAD.size:
            is_refused, width, height = ANSWER_HEAD.unpack_from(head)
            if is_refused:
                detail = head[ANSWER_HEAD.size :][:_MAX_DETAIL_BYTES].decode(errors="replace")
                raise PictureRefused(Flaw.TRUNCATED, detail)
            if 0 < values * width * height == len(pixels):
                return Image.frombytes(mode, (width, height), pixels)
        _logger.error("a decoder answered what is no picture: %r and %d bytes", head[:_MAX_DETAIL_BYTES], len(pixels))
        raise PictureRefused(Flaw.TRUNCATED, "cannot be decoded")

    def warm(self) -> None:
        """Have a child ready. Raises ServiceUnavailable."""
        self._pool.warm()

    def close(self) -> None:
        """End the children."""
        self._pool.close()
