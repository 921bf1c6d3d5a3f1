"""Start pictures in child processes: the same pixels, the same words, and no belief in what a child forges."""

from collections.abc import Iterator
from contextlib import closing
from typing import get_args

import pytest

from inference_service import picture_decoding
from inference_service.picture_decoding import ANSWER_HEAD, Decode, Decoder, PictureKind, decode
from service_kit.decoder import DecodingSettings
from service_kit.picture_file import PictureRefused
from tests.forging_decoder import forged
from tests.unit.inference.picture_bytes import encoded, left_half, picture, png_bomb


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(DecodingSettings(decoder_children=1))) as made:
        yield made


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    monkeypatch.setattr(picture_decoding, "_CHILD", "tests.forging_decoder")
    with closing(Decoder(DecodingSettings(decoder_children=1))) as made:
        yield made


def said_of(decode: Decode, kind: PictureKind, file: bytes) -> tuple[str, tuple[int, int], bytes] | str:
    """The image's mode, size and pixels, or why there is none."""
    try:
        image = decode(kind, file)
    except PictureRefused as refused:
        return refused.detail
    return image.mode, image.size, image.tobytes()


def test_children_give_the_same_pixels_and_the_same_words(decoder: Decoder) -> None:
    modes = [encoded(picture().convert(mode)) for mode in ("RGB", "RGBA", "P", "1", "L")]
    kinds = [encoded(picture(), kind) for kind in ("JPEG", "WEBP", "GIF")]
    refused = [b"no picture", png_bomb(5000), encoded(picture())[:200], b""]
    for file in (*modes, *kinds, *refused, encoded(left_half())):
        for kind in get_args(PictureKind):
            assert said_of(decoder.decode, kind, file) == said_of(decode, kind, file)


def test_what_a_child_forges_is_not_believed(taken_over: Decoder) -> None:
    size = ANSWER_HEAD.pack(False, 4, 2)
    assert taken_over.decode("picture", forged(size, bytes(24))).size == (4, 2)
    forgeries = {
        "fewer pixels than it says": (size, bytes(23)),
        "more pixels than it says": (size, bytes(25)),
        "no pixels": (ANSWER_HEAD.pack(False, 0, 0), b""),
        "a size that is no picture's": (ANSWER_HEAD.pack(False, 2**32 - 1, 2**32 - 1), bytes(3)),
        "no size": (b"", bytes(24)),
    }
    for name, (head, pixels) in forgeries.items():
        assert said_of(taken_over.decode, "picture", forged(head, pixels)) == "cannot be decoded", name
    assert (
        len(said_of(taken_over.decode, "mask", forged(ANSWER_HEAD.pack(True, 0, 0) + b"\xff" * 50_000, b""))) <= 1_000
    )
