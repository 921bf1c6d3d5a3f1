"""The picture doctor in child processes: it says what it says, and what a child forges is not believed."""

import io
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from service_kit.decoder import DecodingSettings
from tests.forging_decoder import forged
from tests.unit.trainer.test_picture_doctor import animation, bomb, encoded, picture, text_bomb
from tests.unit.trainer.trainer_fakes import bundled
from trainer_service import decoder as decoder_module
from trainer_service import picture_doctor
from trainer_service.decoder import Decoder
from trainer_service.picture_doctor import Finding, Rejection


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(DecodingSettings(decoder_children=1))) as made:
        yield made


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    monkeypatch.setattr(decoder_module, "_CHILD", "tests.forging_decoder")
    with closing(Decoder(DecodingSettings(decoder_children=1))) as made:
        yield made


def files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = [encoded(picture(), kind, exif=exif) for kind in ("PNG", "JPEG", "WEBP", "HEIF")]
    modes = [encoded(picture(mode=mode)) for mode in ("L", "P", "1", "RGBA", "LA")]
    grey = np.asarray(picture(mode="L")).astype(np.uint16)
    others = [encoded(picture(mode="CMYK"), "JPEG"), encoded(Image.fromarray(grey * 257)), encoded(picture(900, 700))]
    refused = [bomb(11_000, 8_000), animation("WEBP"), encoded(picture(8, 8)), text_bomb(), b"no picture"]
    cut = [file[: len(file) * 2 // 3] for file in kinds]
    return [*kinds, *modes, *others, *refused, *cut, *(image.body for image in bundled(2))]


def test_children_say_what_the_doctor_says(decoder: Decoder) -> None:
    for file in files():
        assert decoder.examine(file) == picture_doctor.examine(file)
        assert decoder.examine_mask(file) == picture_doctor.examine_mask(file)


@pytest.mark.slow
def test_the_largest_pictures_that_are_allowed_are_decoded_within_the_limits(decoder: Decoder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for mode in ("RGBA", "I;16"):
        tile = (
            Image.fromarray(noise).convert("RGBA") if mode == "RGBA" else Image.fromarray(noise.astype(np.uint16) * 257)
        )
        file = io.BytesIO()
        tile.resize((8000, 8000), Image.Resampling.NEAREST).save(file, "PNG", compress_level=1)
        finding = decoder.examine(file.getvalue())
        assert (finding.rejection, finding.source_width) == (None, 8000), finding.detail


def test_what_a_child_forges_is_not_believed(taken_over: Decoder) -> None:
    good = picture_doctor.examine(encoded(picture()))
    said, png = asdict(good) | {"png": ""}, good.png
    assert taken_over.examine(forged(json.dumps(said).encode(), png)) == good
    larger = picture_doctor.examine(encoded(picture(128, 64)))
    with_text = io.BytesIO()
    Image.open(io.BytesIO(png)).save(with_text, "PNG", dpi=(300, 300))
    forgeries = {
        "no JSON": (b"\x80\x04garbage", png),
        "deep JSON": (b"[" * 60_000, png),
        "another rejection": (json.dumps(said | {"rejection": "fine"}).encode(), b""),
        "a rejected picture": (json.dumps(said | {"rejection": "blank"}).encode(), png),
        "a lone surrogate": (json.dumps(said | {"detail": "\ud800"}).encode(), png),
        "a long text": (json.dumps(said | {"detail": "x" * 5_000}).encode(), png),
        "many texts": (json.dumps(said | {"conversions": ["x"] * 5_000}).encode(), png),
        "a short fingerprint": (json.dumps(said | {"fingerprint": good.fingerprint[4:]}).encode(), png),
        "no fingerprint": (json.dumps(said | {"fingerprint": "\u00e4" * 10}).encode(), png),
        "no picture": (json.dumps(said).encode(), b""),
        "a picture of another size": (json.dumps(said).encode(), larger.png),
        "a JPEG": (json.dumps(said).encode(), encoded(picture(), "JPEG")),
        "a PNG that holds more than pixels": (json.dumps(said).encode(), with_text.getvalue()),
        "bytes behind the picture": (json.dumps(said).encode(), png + b"more"),
        "half a picture": (json.dumps(said).encode(), png[:-20]),
        "a huge picture": (json.dumps(said | {"width": 60_000}).encode(), png),
    }
    refused = Finding(rejection=Rejection.TRUNCATED, detail="cannot be decoded")
    for name, (head, body) in forgeries.items():
        assert taken_over.examine(forged(head, body)) == refused, name
    mask = replace(good, fingerprint="")
    assert taken_over.examine_mask(forged(json.dumps(asdict(mask) | {"png": ""}).encode(), png)) == refused
