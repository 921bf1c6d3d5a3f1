"""How a finished image reaches its caller, and how large its file can be. Pure.

Its one rule: what could outgrow a message is refused when the request is checked, not after its steps were computed.
"""

from typing import Literal, get_args

FileFormat = Literal["png", "webp", "jpeg"]
FILE_FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
Delivery = Literal["inline", "bucket"]

# gRPC callers take messages of 4 MiB by default; the rest of the message needs no more than what is left.
MAX_INLINE_BYTES = 3_670_016
# PNG is lossless, so noise takes what its pixels take. For the others, measured at our quality on noise and on random
# saturated blocks, the worst known: 1.12 (JPEG) and 0.99 (WebP).
_MOST_BYTES_PER_PIXEL = {"png": 3.0, "webp": 1.5, "jpeg": 1.5}
# PNG's filter byte a row; and provenance: two texts of at most 10,000 characters, in PNG uncompressed.
_BYTES_PER_ROW = 2
_MOST_PROVENANCE_BYTES = 100_000
# A signature adds 3 to 4 KB with a chain of two certificates; a start with one that adds more than this is refused.
MOST_CREDENTIALS_BYTES = 16_384


def most_bytes(file_format: str, width: int, height: int) -> int:
    """No file of this format and size, in pixels, is longer."""
    pixels = width * height
    content = round(_MOST_BYTES_PER_PIXEL[file_format] * pixels) + _BYTES_PER_ROW * height
    return content + _MOST_PROVENANCE_BYTES + MOST_CREDENTIALS_BYTES
