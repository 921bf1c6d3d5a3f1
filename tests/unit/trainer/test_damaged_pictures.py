"""Damaged picture files of every kind: each is used, or refused by name; nothing raises, nothing crashes a decoder."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from inference_service import picture_decoding
from service_kit.decoder import DecodingSettings
from service_kit.picture_file import PictureRefused
from tests.unit.trainer.test_picture_doctor import encoded, picture
from trainer_service import picture_doctor
from trainer_service.decoder import Decoder

_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_EXIF[0x010E] = "a description"
FILES = {
    "PNG": encoded(picture(), exif=_EXIF),
    "palette": encoded(picture().quantize(16), transparency=3),
    "JPEG": encoded(picture(), "JPEG", exif=_EXIF),
    "CMYK": encoded(picture(mode="CMYK"), "JPEG"),
    "progressive": encoded(picture(), "JPEG", progressive=True),
    "WEBP": encoded(picture(), "WEBP", exif=_EXIF),
    "lossless": encoded(picture(mode="RGBA"), "WEBP", lossless=True),
    "HEIF": encoded(picture(), "HEIF", exif=_EXIF),
}
_EXAMPLES = settings(
    max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


@st.composite
def damaged(draw: st.DrawFn, kind: str) -> bytes:
    """A file of a kind with bytes changed, taken out, put in or cut off, most often near its beginning."""
    body = bytearray(FILES[kind])
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, 200) | st.integers(0, len(FILES[kind])))
        match draw(st.sampled_from(["change", "change", "take out", "put in", "cut off", "repeat"])):
            case "change":
                body[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "take out":
                del body[place : place + draw(st.integers(1, 16))]
            case "put in":
                body[place:place] = draw(st.binary(max_size=16))
            case "cut off":
                del body[max(place, 16) :]
            case "repeat":
                body[place:place] = body[place : place + 64]
    return bytes(body)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(DecodingSettings(decoder_children=1))
    yield made
    made.close()


# Pillow's and libtiff's, for the operator's log.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FILES)
@_EXAMPLES
@given(data=st.data())
def test_the_doctor_uses_or_refuses_whatever_comes(kind: str, data: st.DataObject) -> None:
    body = data.draw(damaged(kind))
    for finding in (picture_doctor.examine(body), picture_doctor.examine_mask(body)):
        assert (finding.rejection is None) == bool(finding.png)
        assert (finding.rejection is None) != bool(finding.detail)
        assert len(finding.detail) < 1_000


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FILES)
@_EXAMPLES
@given(data=st.data())
def test_start_pictures_are_decoded_or_refused_whatever_comes(kind: str, data: st.DataObject) -> None:
    body = data.draw(damaged(kind))
    for asked, mode in (("picture", "RGB"), ("mask", "L")):
        try:
            assert picture_decoding.decode(asked, body).mode == mode  # type: ignore[arg-type]
        except PictureRefused as refused:
            assert refused.detail  # noqa: PT017


def test_damaged_pictures_leave_their_decoder_alive(decoder: Decoder) -> None:
    first = decoder.examine(FILES["PNG"])
    for kind, body in FILES.items():
        for place in range(8, len(body), len(body) // 12):
            broken = body[:place] + os.urandom(8) + body[place + 8 :]
            assert decoder.examine(broken).detail != "cannot be decoded", kind
    assert decoder.examine(FILES["PNG"]) == first
