"""Small pictures of every kind, for a process that must have imported all it needs before it is limited.

Its one rule: libraries import parts of themselves where they are first used, so what shall work later is done once
before.
"""

import io
import os
from collections.abc import Iterator

from PIL import Image

# In pixels; the picture doctor wants 32 at least.
_SIDE = 48
_MODES = {
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "HEIF": ("RGB", "RGBA"),
}


def small_pictures(formats: tuple[str, ...]) -> Iterator[bytes]:
    """Files of noise in each of Pillow's `formats` and their modes, turned by EXIF, and files that are no pictures."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in formats:
        for mode in _MODES[kind]:
            file = io.BytesIO()
            _noise(mode).save(file, kind, exif=exif)
            yield file.getvalue()
            yield file.getvalue()[: file.tell() // 2]
    yield b"no picture"


def _noise(mode: str) -> Image.Image:
    if mode.startswith("I"):
        return Image.frombytes(mode, (_SIDE, _SIDE), os.urandom(2 * _SIDE**2))
    return Image.frombytes("RGB", (_SIDE, _SIDE), os.urandom(3 * _SIDE**2)).convert(mode)
