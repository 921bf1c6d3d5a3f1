"""Pictures to start from: how they are cut and scaled, what they default to, which steps are run."""

import inspect

import numpy as np
import pytest
from PIL import Image

from inference_service.picture_decoding import decode
from inference_service.start_pictures import OpenedStart, Start, StartDraft, first_step, open_start
from service_kit.errors import DataLost, InvalidRequest, Violations
from service_kit.names import DatasetImageName, DatasetName
from tests.unit.inference.picture_bytes import encoded, left_half, picture

ORIENTATION = 0x0112
NAME = DatasetImageName(DatasetName("p", "d"), "0" * 64)


def _open(draft: StartDraft, steps: int = 20) -> OpenedStart:
    violations = Violations()
    opened = open_start(draft, steps, violations, decode)
    violations.raise_if_any()
    return opened


def _wrong(draft: StartDraft, steps: int = 20) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        _open(draft, steps)
    return {violation.field: violation.description for violation in caught.value.violations}


def _fitted(image: Image.Image, mask: Image.Image | None = None, size: tuple[int, int] = (64, 64)) -> Start:
    draft = StartDraft(content=encoded(image), mask=b"" if mask is None else encoded(mask))
    return _open(draft).fitted(*size, _never, decode)


def _never(name: DatasetImageName) -> bytes:
    raise AssertionError(f"{name} was asked for")


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    assert np.array_equal(_fitted(picture()).picture_HWC, np.asarray(picture()))


def test_a_picture_and_its_mask_are_cut_at_the_centre_and_scaled_alike() -> None:
    image = Image.new("RGB", (300, 100), "black")
    image.paste("red", (100, 0, 150, 100))
    image.paste("lime", (150, 0, 200, 100))
    mask = Image.new("L", (600, 200))
    mask.paste(255, (200, 0, 300, 200))
    start = _fitted(image, mask, (64, 64))
    assert start.mask_HW is not None
    red_HW = (start.picture_HWC[..., 0] > 128) & (start.picture_HWC[..., 1] < 128)
    assert start.picture_HWC.shape == (64, 64, 3)
    assert red_HW[:, :32].all()
    assert not red_HW[:, 32:].any()
    assert np.array_equal(start.mask_HW, red_HW.astype(np.float32))


def test_width_comes_before_height() -> None:
    start = _fitted(picture(90, 80), left_half(90, 80), (48, 64))
    assert start.mask_HW is not None
    assert (start.picture_HWC.shape, start.mask_HW.shape) == ((64, 48, 3), (64, 48))


def test_a_mask_is_drawn_anew_from_half_white_on() -> None:
    mask = Image.fromarray(np.array([[127, 128]], dtype=np.uint8).repeat(64, 0).repeat(32, 1))
    start = _fitted(picture(), mask)
    assert start.mask_HW is not None
    assert np.array_equal(start.mask_HW[0], [0.0] * 32 + [1.0] * 32)


def test_orientation_is_applied_to_the_picture() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    draft = StartDraft(content=encoded(picture(96, 64), "PNG", exif=exif), mask=encoded(left_half(64, 96)))
    start = _open(draft).fitted(64, 96, _never, decode)
    assert np.array_equal(start.picture_HWC, np.asarray(picture(96, 64).transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_pictures_of_every_mode_become_rgb(mode: str) -> None:
    body = encoded(picture().convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    assert _open(StartDraft(content=body)).fitted(64, 64, _never, decode).picture_HWC.shape == (64, 64, 3)


def test_what_is_transparent_is_white_in_a_picture_and_kept_by_a_mask() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    half = clear.copy()
    half.paste((255, 255, 255, 255), (0, 0, 32, 64))
    start = _fitted(Image.new("RGBA", (64, 64), (255, 0, 0, 0)), half)
    assert (start.picture_HWC == 255).all()
    assert start.mask_HW is not None
    assert np.array_equal(start.mask_HW[0], [1.0] * 32 + [0.0] * 32)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_three_formats_are_taken(kind: str) -> None:
    assert _open(StartDraft(content=encoded(picture(), kind))).picture is not None


def test_strength_defaults_to_what_diffusers_takes() -> None:
    from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline

    def default(pipeline: type) -> float:
        return float(inspect.signature(pipeline).parameters["strength"].default)

    content, mask = encoded(picture()), encoded(left_half())
    assert _open(StartDraft(content=content)).strength == default(StableDiffusionImg2ImgPipeline.__call__)
    assert _open(StartDraft(content=content, mask=mask)).strength == default(StableDiffusionInpaintPipeline.__call__)


@pytest.mark.parametrize(
    ("steps", "strength", "first"), [(20, 0.8, 4), (20, 1.0, 0), (20, 0.05, 19), (10, 0.39, 7), (3, 0.34, 2)]
)
def test_strength_says_how_many_of_the_last_steps_are_run(steps: int, strength: float, first: int) -> None:
    assert first_step(steps, strength) == first


@pytest.mark.parametrize("steps", [1, 3, 20, 49, 150])
def test_a_strength_that_runs_no_step_is_refused_with_one_that_does(steps: int) -> None:
    wrong = _wrong(StartDraft(content=encoded(picture()), strength=0.99 / steps), steps)
    allowed = float(wrong["start.strength"].removesuffix(" or more").rpartition(" ")[2])
    assert _open(StartDraft(content=encoded(picture()), strength=allowed), steps).strength == allowed


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_strength_out_of_bounds_is_refused(strength: float) -> None:
    assert set(_wrong(StartDraft(content=encoded(picture()), strength=strength))) == {"start.strength"}


def test_everything_wrong_with_a_start_is_said_at_once() -> None:
    black = encoded(Image.new("L", (64, 64)))
    assert set(_wrong(StartDraft(content=b"text", strength=2.0, mask=black))) == {
        "start.content",
        "start.strength",
        "start.mask",
    }
    assert set(_wrong(StartDraft(image="nonsense", mask=encoded(left_half(), "WEBP")))) == {"start.image", "start.mask"}
    assert set(_wrong(StartDraft())) == {"start"}
    assert set(_wrong(StartDraft(content=b""))) == {"start.content"}


def test_a_stored_picture_that_cannot_be_read_is_data_loss() -> None:
    with pytest.raises(DataLost, match="upload it again"):
        _open(StartDraft(image=str(NAME))).fitted(64, 64, lambda name: b"rotten", decode)


def test_a_mask_must_have_the_proportions_of_a_stored_picture_too() -> None:
    opened = _open(StartDraft(image=str(NAME), mask=encoded(left_half(64, 32))))
    with pytest.raises(InvalidRequest, match=r"start\.mask: found 64 x 32 for a picture of 64 x 64"):
        opened.fitted(64, 64, lambda name: encoded(picture()), decode)
