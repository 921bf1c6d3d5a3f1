"""The grammar of an upload stream, rule by rule."""

import pytest

from service_kit.errors import InvalidRequest
from trainer_service.upload import MAX_CHUNK_BYTES, MAX_IMAGE_BYTES, Chunk, Header, ImageStart, Part, Upload

HEADER = Header("projects/default/datasets/cat")
IMAGE = ImageStart("a.png", 4, "happy")


def fed(*parts: Part) -> Upload:
    upload = Upload()
    for part in parts:
        upload.feed(part)
    return upload


def test_a_picture_is_handed_on_when_its_last_byte_has_come() -> None:
    upload = fed(HEADER, IMAGE)
    assert upload.feed(Chunk(b"abc")) is None
    image = upload.feed(Chunk(b"d"))
    assert image is not None
    assert (image.filename, image.caption, image.body) == ("a.png", "happy", b"abcd")
    assert str(upload.finish()) == HEADER.dataset


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([IMAGE], "first message must be header"),
        ([Chunk(b"x")], "first message must be header"),
        ([HEADER, HEADER], "second header"),
        ([HEADER, Chunk(b"x")], "belongs to no picture"),
        ([HEADER, IMAGE, Chunk(b"abcd"), Chunk(b"e")], "belongs to no picture"),
        ([HEADER, IMAGE, Chunk(b"abcde")], "more than the 4 bytes"),
        ([HEADER, IMAGE, IMAGE], "after 0 of 4 bytes"),
        ([Header("projects/default/datasets/../x")], "allowed is projects/"),
        ([HEADER, ImageStart("http://example.org/a.png", 4, "")], "URLs are not fetched"),
        ([HEADER, ImageStart("a.png", MAX_IMAGE_BYTES + 1, "")], "52,428,800"),
        ([HEADER, ImageStart("", 4, "")], "image.filename"),
        ([HEADER, ImageStart("a.png", 4, "x" * 1001)], "at most 1,000 characters"),
        ([HEADER, ImageStart("a.png", MAX_IMAGE_BYTES, ""), Chunk(b"x" * (MAX_CHUNK_BYTES + 1))], "1,048,576"),
    ],
)
def test_what_is_out_of_order_or_too_large_is_refused_in_words(parts: list[Part], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        fed(*parts)


@pytest.mark.parametrize("parts", [[], [HEADER, IMAGE], [HEADER, IMAGE, Chunk(b"ab")]])
def test_a_stream_that_ends_early_is_refused(parts: list[Part]) -> None:
    with pytest.raises(InvalidRequest):
        fed(*parts).finish()
