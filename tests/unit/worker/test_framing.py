"""Framing: which shape a picture is trained in, and which part of it stays."""

import hashlib
import io
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from service_kit import schema
from service_kit.memory_store import MemoryStore
from service_kit.names import DatasetName
from trainer_service.training_record import TrainingDataset, TrainingImage
from trainer_service.worker.framing import Crop, Framing
from trainer_service.worker.pictures import TrainingPicture, fetch_pictures

DATASET = DatasetName("default", "cat")


def picture(width: int, height: int) -> Image.Image:
    """Noise over a gradient."""
    noise = np.random.default_rng(width * height).integers(0, 60, (height, width, 3))
    return Image.fromarray((noise + np.linspace(0, 190, width)[None, :, None]).astype(np.uint8))


def fetched(framing: Framing, image: Image.Image, mask: Image.Image | None = None) -> TrainingPicture:
    store = MemoryStore()
    digests = {"image": "", "mask": ""}
    for kind, stored in (("image", image), ("mask", mask)):
        if stored is not None:
            file = io.BytesIO()
            stored.save(file, "PNG")
            digests[kind] = hashlib.sha256(file.getvalue()).hexdigest()
            key_of = schema.dataset_image if kind == "image" else schema.dataset_mask
            store.put(key_of(DATASET, digests[kind]), file.getvalue())
    entry = TrainingImage(digest=digests["image"], caption="", mask_digest=digests["mask"])
    seen: list[tuple[int, int]] = []
    snapshot = TrainingDataset(digest="d", images=(entry,))
    (found,) = fetch_pictures(store, DATASET, snapshot, framing, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]
    return found


@pytest.mark.parametrize(("resolution", "step"), [(64, 8), (512, 8), (512, 64), (1024, 64), (72, 8)])
def test_buckets_are_of_about_the_area_of_the_square_and_never_larger(resolution: int, step: int) -> None:
    framing, shapes = Framing(resolution, step, True, "centre"), set()
    for width in range(100, 1001, 5):
        wide, high = framing.size_for((width, 1100 - width))
        assert wide % step == high % step == 0
        assert 0.5 <= wide / high <= 2
        assert resolution**2 - 2 * step * resolution <= wide * high <= resolution**2
        shapes.add((wide, high))
    assert (resolution, resolution) in shapes
    assert {(high, wide) for wide, high in shapes} == shapes


def test_a_picture_goes_to_the_bucket_that_cuts_least_away() -> None:
    framing = Framing(512, 64, True, "centre")
    assert framing.size_for((4000, 4000)) == (512, 512)
    assert framing.size_for((4032, 3024)) == (576, 448)
    assert framing.size_for((3024, 4032)) == (448, 576)
    assert Framing(512, 64, False, "centre").size_for((4032, 3024)) == (512, 512)


def test_without_buckets_the_centre_square_is_what_pillow_would_fit() -> None:
    for size in ((96, 64), (50, 131), (64, 64), (20, 30)):
        image = picture(*size)
        fitted = ImageOps.fit(image, (64, 64), Image.Resampling.LANCZOS)
        expected = torch.from_numpy(np.array(fitted, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
        assert torch.equal(fetched(Framing(64, 8, False, "centre"), image).pixels_CHW, expected)


def test_what_is_kept_lies_inside_the_picture_and_has_the_bucket_s_shape() -> None:
    draw = random.Random(0)
    for _ in range(60):
        width, height = draw.randint(32, 120), draw.randint(32, 120)
        crop: Crop = draw.choice(["centre", "salient"])
        framing = Framing(64, 8, draw.random() < 0.5, crop)
        grey = np.asarray(picture(width, height).convert("L"))
        left, top, right, bottom = framing.box(grey, None)
        assert 0 <= left < right <= width + 1e-6
        assert 0 <= top < bottom <= height + 1e-6
        wide, high = framing.size_for((width, height))
        assert (right - left) / (bottom - top) == pytest.approx(wide / high)


def test_a_salient_crop_follows_the_detail_and_a_plain_picture_is_cut_in_the_middle() -> None:
    framing = Framing(64, 8, False, "salient")
    plain = np.full((100, 300), 90, np.uint8)
    assert framing.box(plain, None) == (100, 0, 200, 100)
    busy = plain.copy()
    busy[20:80, 220:280] = np.random.default_rng(0).integers(0, 255, (60, 60))
    left, _, right, _ = framing.box(busy, None)
    assert left <= 220
    assert right >= 280
    left, _, right, _ = Framing(64, 8, False, "centre").box(busy, None)
    assert (left, right) == (100, 200)


def test_a_mask_leads_the_salient_crop_away_from_busier_places() -> None:
    framing = Framing(64, 8, False, "salient")
    busy = np.full((300, 100), 90, np.uint8)
    busy[200:280] = np.random.default_rng(0).integers(0, 255, (80, 100))
    mask = np.zeros((300, 100), np.uint8)
    mask[80:120, 30:60] = 255
    assert framing.box(busy, mask) == (0, 50, 100, 150)
    mask[:] = 0
    mask[0:10] = 255
    assert framing.box(busy, mask) == (0, 0, 100, 100)


@pytest.mark.parametrize("crop", ["centre", "salient"])
def test_a_mask_is_cut_with_its_picture_whatever_its_size(crop: Crop) -> None:
    image, mask = Image.new("RGB", (200, 100), "black"), Image.new("L", (400, 200))
    ImageDraw.Draw(image).rectangle((120, 20, 170, 80), fill="white")
    ImageDraw.Draw(mask).rectangle((240, 40, 341, 161), fill=255)
    found = fetched(Framing(64, 8, True, crop), image, mask)
    assert found.mask_1HW is not None
    assert found.mask_1HW.shape == (1, *found.pixels_CHW.shape[1:])
    assert (found.mask_1HW.min(), found.mask_1HW.max()) == (0, 1)
    grey_1HW = (found.pixels_CHW.mean(0, keepdim=True) + 1) / 2
    assert (grey_1HW - found.mask_1HW).abs().mean() < 0.02


def test_a_picture_without_a_mask_has_none() -> None:
    assert fetched(Framing(64, 8, False, "centre"), picture(80, 70)).mask_1HW is None


def test_small_pictures_are_enlarged() -> None:
    assert fetched(Framing(128, 8, True, "centre"), picture(40, 32)).pixels_CHW.shape == (3, 112, 144)
