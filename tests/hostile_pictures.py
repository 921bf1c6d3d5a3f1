"""Picture files as people, phones and attackers send them."""

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image


def picture(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """A picture with something on it: noise over a gradient."""
    noise = np.random.default_rng(0).integers(0, 120, (height, width, 3))
    gradient = np.linspace(0, 130, width)[None, :, None]
    return Image.fromarray((noise + gradient).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The bytes of a file of that kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A legal one-bit PNG of any size in a few kilobytes a megapixel."""
    rows = zlib.compressobj(9)
    row = b"\0" * (1 + (width + 7) // 8)
    pixels = b"".join(rows.compress(row) for _ in range(height)) + rows.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def animation(kind: str) -> bytes:
    """Two frames in one file."""
    frames = [picture(), picture().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


@cache
def text_bomb() -> bytes:
    """A PNG whose comment unpacks to 300 MB."""
    body = encoded(picture())
    return body[:33] + _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 300_000_000, level=1)) + body[33:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
