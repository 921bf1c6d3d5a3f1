"""`python -m inference_service.decoder_child`: start pictures in a limited process; see `picture_decoding.py`."""

from functools import partial

from inference_service.picture_decoding import ANSWER_HEAD, FORMATS, PictureKind, decode
from service_kit.decoder_child import serve_pictures
from service_kit.picture_file import PictureRefused
from service_kit.rehearsal import small_pictures


def _told(kind: PictureKind, body: bytes) -> tuple[bytes, bytes]:
    """Of a file: ANSWER_HEAD, and why it is refused or its pixels."""
    try:
        image = decode(kind, body)
    except PictureRefused as refused:
        return ANSWER_HEAD.pack(True, 0, 0) + refused.detail.encode(errors="replace"), b""
    return ANSWER_HEAD.pack(False, *image.size), image.tobytes()


if __name__ == "__main__":
    serve_pictures({kind: partial(_told, kind) for kind in ("picture", "mask")}, small_pictures(FORMATS))
