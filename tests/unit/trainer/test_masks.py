"""Masks: which picture one belongs to, when it counts, and what a dataset keeps of it."""

import io
from itertools import permutations

import pytest
from PIL import Image, ImageDraw

from service_kit import schema
from service_kit.names import DatasetName, ProjectName
from tests.unit.trainer.test_near_duplicates import scene
from tests.unit.trainer.trainer_fakes import Trainer, plain_png, request
from trainer_service.dataset_record import DatasetRecord
from trainer_service.picture_doctor import Rejection
from trainer_service.training_store import TrainingStore
from trainer_service.upload import UploadedImage


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def picture(name: str = "x.jpg", seed: int = 0, size: tuple[int, int] = (120, 80)) -> UploadedImage:
    return UploadedImage(name, "happy", encoded(scene(seed).resize(size), "JPEG"))


def mask(name: str = "x_mask.png", size: tuple[int, int] = (120, 80), mode: str = "L") -> UploadedImage:
    drawn = Image.new(mode, size)
    ImageDraw.Draw(drawn).rectangle((10, 10, size[0] // 2, size[1] // 2), fill="white")
    return UploadedImage(name, "", encoded(drawn))


def uploaded(trainer: Trainer, name: DatasetName, *files: UploadedImage) -> DatasetRecord:
    return trainer.datasets.add(name, [trainer.datasets.keep(name, file) for file in files])


@pytest.fixture
def name(trainer: Trainer) -> DatasetName:
    return trainer.datasets.create("", "cat", "", "").name


def stored_keys(trainer: Trainer, name: DatasetName) -> set[str]:
    return set(trainer.store.keys(f"{name}/")) - {schema.dataset_record(name)}


@pytest.mark.parametrize("order", list(permutations([picture(), mask(), picture("y.png", seed=1)])))
def test_a_mask_finds_its_picture_in_any_order_of_a_stream(
    trainer: Trainer, name: DatasetName, order: tuple[UploadedImage, ...]
) -> None:
    record = uploaded(trainer, name, *order)
    assert {image.filename: bool(image.mask_digest) for image in record.images} == {"x.jpg": True, "y.png": False}
    (masked,) = [image for image in record.accepted if image.mask_digest]
    kept = Image.open(io.BytesIO(trainer.store.get(schema.dataset_mask(name, masked.mask_digest)).body))
    assert (kept.mode, kept.size, kept.getpixel((20, 20)), kept.getpixel((100, 70))) == ("L", (120, 80), 255, 0)


def test_a_mask_that_comes_later_is_added_and_changes_the_digest(trainer: Trainer, name: DatasetName) -> None:
    before = uploaded(trainer, name, picture())
    after = uploaded(trainer, name, mask())
    assert [bool(image.mask_digest) for image in after.images] == [True]
    assert before.digest != after.digest
    assert uploaded(trainer, name, mask()) == after
    replaced = uploaded(trainer, name, mask(size=(240, 160)))
    assert replaced.digest not in (before.digest, after.digest)


def test_a_mask_without_its_picture_is_refused_and_taken_when_sent_again_with_it(
    trainer: Trainer, name: DatasetName
) -> None:
    early = uploaded(trainer, name, mask())
    assert [image.rejection for image in early.images] == [Rejection.MASK_MISFIT]
    assert "taken as the mask of x" in early.images[0].detail
    assert stored_keys(trainer, name) == set()
    late = uploaded(trainer, name, mask(), picture())
    assert [(image.filename, bool(image.mask_digest)) for image in late.images] == [("x.jpg", True)]


def test_a_mask_of_other_proportions_is_refused_and_not_kept(trainer: Trainer, name: DatasetName) -> None:
    record = uploaded(trainer, name, picture(), mask(size=(80, 120)))
    assert [image.rejection for image in record.images] == [None, Rejection.MASK_MISFIT]
    assert record.images[1].detail == "found 80 x 120 for x.jpg of 120 x 80; allowed are the same proportions"
    assert stored_keys(trainer, name) == {schema.dataset_image(name, record.images[0].digest)}
    assert any("Masks without effect: x_mask.png" in said for said in record.advice)


def test_a_mask_that_marks_nothing_is_refused(trainer: Trainer, name: DatasetName) -> None:
    record = uploaded(trainer, name, picture(), UploadedImage("x_mask.png", "", plain_png("black")))
    assert record.images[1].rejection is Rejection.BLANK
    white = uploaded(trainer, name, UploadedImage("x_mask.png", "", encoded(Image.new("1", (120, 80), 1))))
    assert [bool(image.mask_digest) for image in white.images] == [True]


def test_a_transparent_mask_is_black_where_it_is_transparent(trainer: Trainer, name: DatasetName) -> None:
    record = uploaded(trainer, name, picture(), mask(mode="RGBA"))
    kept = Image.open(io.BytesIO(trainer.store.get(schema.dataset_mask(name, record.images[0].mask_digest)).body))
    assert (kept.getpixel((20, 20)), kept.getpixel((100, 70))) == (255, 0)


def test_a_training_gets_the_masks_of_its_pictures_also_from_the_bucket(trainer: Trainer) -> None:
    prefix = schema.incoming_prefix(ProjectName("default"), "phone")
    for seed in range(3):
        image = picture(f"p{seed}.heif.jpg", seed)
        trainer.store.put(prefix + image.filename, image.body)
    trainer.store.put(prefix + "p1.heif_mask.png", mask().body)
    record = trainer.datasets.create("", "cat", "", "phone")
    assert [bool(image.mask_digest) for image in record.images] == [False, True, False]
    created = trainer.trainings.create(request())
    snapshot = TrainingStore(trainer.store).dataset(created.record.name)
    assert [image.mask_digest for image in snapshot.images] == [image.mask_digest for image in record.images]
    assert snapshot.digest == record.digest
