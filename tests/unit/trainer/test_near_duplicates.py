"""Near-duplicates: copies are found, and two drawings of one figure never are."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from trainer_service.near_duplicates import Gallery, fingerprint

SETS = Path(__file__).parents[3] / "base_models" / "toon_64" / "sets"


@cache
def scene(seed: int, size: tuple[int, int] = (800, 600)) -> Image.Image:
    """Something like a photograph: soft shapes of all sizes (an amplitude of one over frequency) and grain."""
    random = np.random.default_rng(seed)
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.fftfreq(width)[None] * width) + 1
    layers = []
    for _ in range(3):
        spectrum = np.fft.fft2(random.normal(size=(height, width))) / frequency
        layer = np.real(np.fft.ifft2(spectrum))
        layers.append(110 + 40 * layer / layer.std() + random.normal(0, 4, (height, width)))
    return Image.fromarray(np.clip(np.stack(layers, axis=-1), 0, 255).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, kind, quality=quality)
    return Image.open(file).convert("RGB")


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


COPIES = {
    "a JPEG of low quality": lambda picture: encoded(picture, "JPEG", 40),
    "a WebP": lambda picture: encoded(picture, "WEBP", 60),
    "half the size": lambda picture: picture.resize(
        (picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS
    ),
    "enlarged": lambda picture: picture.resize((picture.width * 3 // 2, picture.height * 3 // 2)),
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.12),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.8),
    "cropped all round": lambda picture: cropped(picture, 0.03, 0.03, 0.03, 0.03),
    "cropped at a corner": lambda picture: cropped(picture, 0.05, 0, 0, 0.04),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_among_other_pictures_whichever_comes_first(kind: str) -> None:
    pictures = [scene(seed) for seed in range(4)]
    copies = [COPIES[kind](picture) for picture in pictures]
    for first, second in ((pictures, copies), (copies, pictures)):
        gallery = Gallery()
        for index, picture in enumerate(first):
            gallery.add(str(index), fingerprint(picture))
        assert [gallery.copied(fingerprint(picture)) for picture in second] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("folder", sorted(path.name for path in SETS.iterdir()))
def test_no_two_drawings_of_a_bundled_set_are_copies(folder: str) -> None:
    gallery, copies = Gallery(), []
    for path in sorted((SETS / folder).glob("*/*.png")):
        print_ = fingerprint(Image.open(path).convert("RGB"))
        name = f"{path.parent.name}/{path.name}"
        copies.append((name, gallery.copied(print_)))
        gallery.add(name, print_)
    assert [(name, other) for name, other in copies if other is not None] == []
    assert len(copies) >= 32


def test_a_drawing_that_was_encoded_again_is_a_copy() -> None:
    drawing = Image.open(SETS / "toon-a" / "train" / "00.png").convert("RGB")
    gallery = Gallery()
    gallery.add("first", fingerprint(drawing))
    assert gallery.copied(fingerprint(encoded(drawing, "JPEG", 75))) == "first"
    assert gallery.copied(fingerprint(drawing.resize((512, 512), Image.Resampling.NEAREST))) == "first"


def test_another_view_of_the_same_thing_is_no_copy() -> None:
    whole = scene(7, (1120, 600))
    gallery = Gallery()
    gallery.add("left", fingerprint(whole.crop((0, 0, 800, 600))))
    assert gallery.copied(fingerprint(whole.crop((320, 0, 1120, 600)))) is None
    assert gallery.copied(fingerprint(scene(8))) is None
