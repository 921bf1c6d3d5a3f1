"""The picture doctor for files from outside: it works in limited child processes, and what they say is checked here.

Its one rule: no byte of an uploaded file is decoded in this process, and what is stored is a plain PNG of the size that
the finding says.
"""

import base64
import binascii
import logging
import struct
from dataclasses import replace
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from service_kit.decoder import DecoderPool, DecodingSettings
from service_kit.picture_file import PictureRefused
from trainer_service.near_duplicates import FINGERPRINT_BYTES
from trainer_service.picture_doctor import MAX_STORED_SIDE, Finding, Rejection

_CHILD = "trainer_service.decoder_child"
# Noise does not compress; the rest is what zlib and the filters add.
_MAX_PNG_BYTES = 4 * MAX_STORED_SIDE**2
_MAX_DETAIL_CHARACTERS = 1_000
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB = 0, 2
_FINDING = TypeAdapter(Finding)
_logger = logging.getLogger(__name__)


class Doctor(Protocol):
    """Judges files from outside: the module `picture_doctor` itself, or a Decoder."""

    def examine(self, body: bytes) -> Finding:
        """See `picture_doctor.examine`."""
        ...

    def examine_mask(self, body: bytes) -> Finding:
        """See `picture_doctor.examine_mask`."""
        ...


class Decoder:
    """See Doctor. Both raise TryLater or ServiceUnavailable besides, where no child process can be had."""

    def __init__(self, settings: DecodingSettings) -> None:
        self._pool = DecoderPool(_CHILD, settings.limits, settings.decoder_children)

    def examine(self, body: bytes) -> Finding:
        return self._found("examine", body, _RGB)

    def examine_mask(self, body: bytes) -> Finding:
        return self._found("examine_mask", body, _GREY)

    def warm(self) -> None:
        """Have a child ready. Raises ServiceUnavailable."""
        self._pool.warm()

    def close(self) -> None:
        """End the children."""
        self._pool.close()

    def _found(self, function: str, body: bytes, colour_type: int) -> Finding:
        try:
            head, png = self._pool.ask(function, body, _MAX_PNG_BYTES)
        except PictureRefused as refused:
            return Finding(rejection=Rejection(refused.flaw), detail=refused.detail)
        try:
            finding = replace(_FINDING.validate_json(head), png=png)
        except ValidationError:
            finding = None
        if finding is None or not _is_sound(finding, colour_type):
            _logger.error("a decoder answered what no picture doctor says: %r", head[:_MAX_DETAIL_CHARACTERS])
            return Finding(rejection=Rejection.TRUNCATED, detail="cannot be decoded")
        return finding


def _is_sound(finding: Finding, colour_type: int) -> bool:
    """Whether the doctor could have said this."""
    texts = (finding.detail, finding.source_format, *finding.conversions)
    if max(map(len, texts)) > _MAX_DETAIL_CHARACTERS or len(finding.conversions) > len(Rejection):
        return False
    if finding.rejection is not None:
        return not finding.png
    return (
        _is_fingerprint(finding.fingerprint, FINGERPRINT_BYTES if colour_type == _RGB else 0)
        and max(finding.width, finding.height) <= MAX_STORED_SIDE
        and _is_plain_png(finding.png, finding.width, finding.height, colour_type)
    )


def _is_fingerprint(text: str, size_bytes: int) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == size_bytes
    # A ValueError is that of a text beyond ASCII.
    except (binascii.Error, ValueError):
        return False


def _is_plain_png(file: bytes, width: int, height: int, colour_type: int) -> bool:
    """Whether a PNG is of this size and of 8 bits a value, and holds pixels and nothing else. Decodes nothing."""
    if not file.startswith(_PNG + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, colour_type, 0, 0, 0)):
        return False
    place, kinds = len(_PNG), []
    while place + 8 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, place)
        kinds.append(kind)
        place += 12 + length
    return place == len(file) and kinds[-1] == b"IEND" and set(kinds[1:-1]) == {b"IDAT"}
