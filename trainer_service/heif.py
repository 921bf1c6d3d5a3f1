"""HEIC, what phones photograph in: read with pillow-heif where it is installed.

libheif, inside it, refuses a picture whose coded size is beyond what its header says, so that judging the header
suffices.
"""

import importlib.util

from PIL import Image

NEEDS = (
    "HEIC is read where the trainer service has the package pillow-heif (dependency group `heif`); send JPEG instead"
)
# Brands by which ISO/IEC 23008-12 files of HEVC pictures announce themselves.
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def is_heif(body: bytes) -> bool:
    """Whether a file says of itself that it is HEIF."""
    return body[4:8] == b"ftyp" and body[8:12] in _BRANDS


def register_heif() -> bool:
    """Have Pillow read HEIF, if pillow-heif is installed; say whether it is."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    if "HEIF" not in Image.OPEN:
        from pillow_heif import register_heif_opener

        # Depth maps and thumbnails beside the picture are never looked at; one thread, as other uploads want theirs.
        register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return True
