"""Sharpness: blur is told from softness that belongs to the picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from tests.unit.trainer.test_near_duplicates import scene
from trainer_service.sharpness import is_blurred

SETS = Path(__file__).parents[3] / "base_models" / "toon_64" / "sets"


def portrait() -> Image.Image:
    """A small sharp face before a background that is out of focus."""
    picture = scene(3).filter(ImageFilter.GaussianBlur(6))
    face = Image.new("L", picture.size)
    ImageDraw.Draw(face).ellipse((320, 200, 480, 400), fill=255)
    return Image.composite(Image.new("RGB", picture.size, "bisque"), picture, face)


def test_no_bundled_drawing_is_called_blurred() -> None:
    drawings = sorted(SETS.glob("*/*/*.png"))
    assert [str(path) for path in drawings if is_blurred(Image.open(path).convert("RGB"))] == []
    assert len(drawings) >= 192


def test_a_large_flat_drawing_with_few_edges_is_sharp() -> None:
    drawing = Image.new("RGB", (1500, 2000), "white")
    ImageDraw.Draw(drawing).ellipse((600, 900, 900, 1200), fill="teal")
    assert not is_blurred(drawing)


def test_a_sharp_face_before_a_soft_background_is_sharp_also_in_the_dark() -> None:
    assert not is_blurred(portrait())
    assert not is_blurred(Image.eval(portrait(), lambda value: value // 5))


@pytest.mark.parametrize("radius", [2, 4])
def test_what_is_out_of_focus_is_blurred(radius: int) -> None:
    picture = portrait().resize((512, 384), Image.Resampling.LANCZOS)
    assert is_blurred(picture.filter(ImageFilter.GaussianBlur(radius)))


def test_what_was_enlarged_is_blurred() -> None:
    drawing = Image.open(SETS / "toon-a" / "train" / "00.png").convert("RGB")
    assert is_blurred(drawing.resize((512, 512), Image.Resampling.BICUBIC))


def test_what_was_shaken_is_blurred() -> None:
    values = np.asarray(portrait().resize((512, 384)), dtype=np.float32)
    shaken = sum(np.roll(values, (shift, shift), axis=(0, 1)) for shift in range(24)) / 24
    assert is_blurred(Image.fromarray(shaken[24:, 24:].astype(np.uint8)))


def test_blur_that_is_gone_at_the_size_of_learning_does_not_count() -> None:
    large = portrait().resize((4000, 3000), Image.Resampling.LANCZOS).filter(ImageFilter.GaussianBlur(2))
    assert not is_blurred(large)
