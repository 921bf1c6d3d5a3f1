"""The picture doctor on files as people, phones and attackers send them."""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from tests.hostile_pictures import animation, bomb, encoded, picture, text_bomb
from trainer_service import picture_doctor
from trainer_service.picture_doctor import MAX_STORED_SIDE, PictureWarning, Rejection, examine

ORIENTATION, GPS = 0x0112, 0x8825


def stored(body: bytes) -> Image.Image:
    finding = examine(body)
    assert finding.rejection is None, finding.detail
    return Image.open(io.BytesIO(finding.png))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIF"])
def test_the_four_formats_are_accepted_and_named(kind: str) -> None:
    finding = examine(encoded(picture(), kind))
    assert (finding.rejection, finding.source_format, finding.width, finding.height) == (None, kind, 96, 64)


def test_an_rgb_png_is_stored_pixel_for_pixel() -> None:
    assert np.array_equal(np.asarray(stored(encoded(picture()))), np.asarray(picture()))


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_orientation_is_applied_and_location_is_dropped(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(GPS)[1] = "N"
    body = encoded(picture(), exif=exif)
    finding = examine(body)
    assert (finding.width, finding.height) == ((64, 96) if orientation >= 5 else (96, 64))
    assert (finding.source_width, finding.source_height) == (96, 64)
    assert "EXIF orientation applied" in finding.conversions
    kept = stored(body)
    assert not kept.getexif()
    assert np.array_equal(np.asarray(kept), np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(body)))))


def test_transparency_falls_on_white() -> None:
    image = picture(mode="RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 20, 20))
    kept = stored(encoded(image))
    assert kept.getpixel((5, 5)) == (255, 255, 255)


def test_cmyk_grey_palette_and_16_bit_become_rgb_and_the_report_says_so() -> None:
    grey = np.asarray(picture(mode="L")).astype(np.uint16)
    cases = {
        "CMYK": encoded(picture(mode="CMYK"), "JPEG"),
        "grey": encoded(picture(mode="L")),
        "palette": encoded(picture().quantize(32)),
        "16-bit grey": encoded(Image.fromarray(grey * 257)),
    }
    for word, body in cases.items():
        finding = examine(body)
        assert finding.conversions == (f"{word} converted to RGB",)
        assert Image.open(io.BytesIO(finding.png)).mode == "RGB"
    kept = np.asarray(stored(cases["16-bit grey"]).convert("L")).astype(int)
    assert np.abs(kept - grey.astype(int)).max() <= 1


def test_a_large_photograph_is_scaled_down() -> None:
    finding = examine(encoded(picture(2400, 1800), "JPEG"))
    assert (finding.width, finding.height) == (MAX_STORED_SIDE, MAX_STORED_SIDE * 3 // 4)
    assert (finding.source_width, finding.source_height) == (2400, 1800)
    assert finding.conversions == ("scaled down from 2400 x 1800",)
    assert finding.warnings == (PictureWarning.LARGE,)


def test_fifty_megapixels_cost_little_more_than_decoding_them() -> None:
    tile = np.asarray(picture(2040, 1530).filter(ImageFilter.GaussianBlur(1)))
    body = encoded(Image.fromarray(np.tile(tile, (4, 4, 1))), "JPEG", quality=85)
    started_s = time.process_time()
    with Image.open(io.BytesIO(body)) as image:
        image.load()
    decoding_s = time.process_time() - started_s
    finding = examine(body)
    assert (finding.rejection, finding.source_width, finding.width) == (None, 8160, MAX_STORED_SIDE)
    # Measured: 3 to 4 times.
    assert time.process_time() - started_s - decoding_s < 10 * decoding_s


def test_a_small_picture_is_taken_with_a_warning_and_an_ordinary_one_without() -> None:
    assert examine(encoded(picture(255, 400))).warnings == (PictureWarning.SMALL,)
    assert examine(encoded(picture(256, 400))).warnings == ()


def test_a_blurred_picture_is_taken_with_a_warning() -> None:
    blurred = picture(400, 300).filter(ImageFilter.GaussianBlur(4))
    assert examine(encoded(blurred)).warnings == (PictureWarning.BLURRED,)


def test_without_its_reader_heic_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_doctor, "FORMATS", ("JPEG", "PNG", "WEBP"))
    finding = examine(encoded(picture(), "HEIF"))
    assert finding.rejection is Rejection.UNSUPPORTED_FORMAT
    assert "pillow-heif" in finding.detail


def test_a_heic_whose_header_lies_about_its_size_is_not_decoded() -> None:
    body = bytearray(encoded(picture(400, 300), "HEIF"))
    place = -1
    while (place := body.find(b"ispe", place + 1)) >= 0:
        body[place + 8 : place + 16] = struct.pack(">II", 40, 40)
    assert examine(bytes(body)).rejection is Rejection.TRUNCATED


# Pillow's, for the operator's log.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_is_garbage_costs_a_picture_nothing(kind: str) -> None:
    for garbage in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"):
        assert examine(encoded(picture(), kind, exif=garbage)).rejection is None


def heif_of_size(width: int, height: int) -> bytes:
    """A HEIC that says it is of this size."""
    body = bytearray(encoded(picture(), "HEIF"))
    place = body.find(b"ispe")
    body[place + 8 : place + 16] = struct.pack(">II", width, height)
    return bytes(body)


@pytest.mark.parametrize(
    ("body", "rejection"),
    [
        (b"not a picture", Rejection.UNSUPPORTED_FORMAT),
        (b"PK\x03\x04" + b"\0" * 100, Rejection.UNSUPPORTED_FORMAT),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Rejection.UNSUPPORTED_FORMAT),
        (b"\x7fELF" + b"\0" * 100, Rejection.UNSUPPORTED_FORMAT),
        (encoded(picture(), "GIF"), Rejection.UNSUPPORTED_FORMAT),
        (encoded(picture(400, 300), "JPEG")[:2000], Rejection.TRUNCATED),
        (encoded(picture(400, 300))[:2000], Rejection.TRUNCATED),
        (bomb(60_000, 60_000 // 40), Rejection.PIXELS_EXCEEDED),
        (bomb(11_000, 8_000), Rejection.PIXELS_EXCEEDED),
        (bomb(60_000, 4_000), Rejection.PIXELS_EXCEEDED),
        (animation("WEBP"), Rejection.ANIMATED),
        (animation("PNG"), Rejection.ANIMATED),
        (animation("HEIF"), Rejection.ANIMATED),
        (encoded(picture(400, 300), "HEIF")[:2000], Rejection.TRUNCATED),
        (heif_of_size(9000, 9000), Rejection.PIXELS_EXCEEDED),
        (heif_of_size(60_000, 20_000), Rejection.PIXELS_EXCEEDED),
        (encoded(picture(8, 8)), Rejection.TOO_SMALL),
        (encoded(picture(1, 900)), Rejection.ASPECT),
        (encoded(Image.new("RGB", (64, 64), "teal")), Rejection.BLANK),
        (text_bomb(), Rejection.METADATA_TOO_LARGE),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(body: bytes, rejection: Rejection) -> None:
    finding = examine(body)
    assert finding.rejection is rejection
    assert finding.detail
    assert not finding.png
