"""Datasets: what an upload adds, what it leaves alone, and what a broken one leaves behind."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from service_kit import schema
from service_kit.errors import InvalidRequest, ResourceExists, ResourceMissing
from service_kit.names import DatasetName, ProjectName
from tests.unit.trainer.trainer_fakes import Trainer, bundled, plain_png
from trainer_service.intake import receive_images
from trainer_service.paging import PageRequest
from trainer_service.picture_doctor import Rejection
from trainer_service.upload import Chunk, Header, ImageStart, Part, UploadedImage


def upload(trainer: Trainer, parts: list[Part], then: BaseException | None = None) -> None:
    async def stream() -> AsyncIterator[Part]:
        for part in parts:
            yield part
        if then is not None:
            raise then

    asyncio.run(receive_images(trainer.datasets, stream()))


def parts_of(image: UploadedImage) -> list[Part]:
    return [ImageStart(image.filename, len(image.body), image.caption), Chunk(image.body)]


def test_the_report_says_which_picture_was_refused_and_why(trainer: Trainer) -> None:
    name = trainer.dataset(count=15)
    broken = UploadedImage("broken.jpg", "", b"\xff\xd8 this is no photograph")
    record = trainer.datasets.add(name, [trainer.datasets.keep(name, broken)])
    assert record.ready
    assert len(record.accepted) == 15
    (refused,) = [image for image in record.images if not image.accepted]
    assert (refused.filename, refused.rejection) == ("broken.jpg", Rejection.UNSUPPORTED_FORMAT)


def test_two_pictures_are_not_enough_and_three_are(trainer: Trainer) -> None:
    assert not trainer.datasets.get(trainer.dataset("two", 2)).ready
    assert trainer.datasets.get(trainer.dataset("three", 3)).ready


def test_uploading_the_same_files_again_changes_nothing(trainer: Trainer) -> None:
    name = trainer.dataset()
    before = trainer.datasets.get(name)
    again = [trainer.datasets.keep(name, image) for image in bundled()]
    assert trainer.datasets.add(name, again) == before


def test_equal_pixels_under_another_name_count_once(trainer: Trainer) -> None:
    name = trainer.dataset(count=3)
    first = bundled(1)[0]
    copy = UploadedImage("copy.png", "", first.body)
    record = trainer.datasets.add(name, [trainer.datasets.keep(name, copy)])
    assert record.images[-1].rejection is Rejection.DUPLICATE
    assert first.filename in record.images[-1].detail
    assert len(record.accepted) == 3


def test_a_stream_that_breaks_leaves_the_dataset_as_it_was_and_no_picture_behind(trainer: Trainer) -> None:
    name = trainer.dataset(count=3)
    keys = list(trainer.store.keys(""))
    images = bundled(6)
    whole = [part for image in images[3:5] for part in parts_of(image)]
    with pytest.raises(ConnectionError):
        upload(trainer, [Header(str(name)), *whole], then=ConnectionError())
    half = [ImageStart("half.png", 5000, ""), Chunk(images[5].body[:100])]
    with pytest.raises(InvalidRequest, match="100 of 5,000 bytes"):
        upload(trainer, [Header(str(name)), *whole, *half])
    assert list(trainer.store.keys("")) == keys
    assert len(trainer.datasets.get(name).images) == 3


def test_an_upload_to_a_missing_dataset_fails_before_its_pictures(trainer: Trainer) -> None:
    with pytest.raises(ResourceMissing):
        upload(trainer, [Header("projects/default/datasets/none"), ImageStart("x.png", 10, "")])


def test_create_with_the_same_request_id_gives_the_same_dataset(trainer: Trainer) -> None:
    request_id = str(uuid.uuid4())
    first = trainer.datasets.create("", "", request_id, "")
    assert trainer.datasets.create("", "", request_id, "") == first
    with pytest.raises(ResourceExists):
        trainer.datasets.create("", first.dataset, str(uuid.uuid4()), "")


def test_pictures_that_lie_in_the_bucket_are_taken_with_their_captions(trainer: Trainer) -> None:
    prefix = schema.incoming_prefix(ProjectName("default"), "from-phone")
    for image in bundled(4):
        trainer.store.put(prefix + image.filename, image.body)
        trainer.store.put(prefix + image.filename.replace(".png", ".txt"), image.caption.encode())
    trainer.store.put(prefix + "blank.png", plain_png())
    record = trainer.datasets.create("", "phone", "", "from-phone")
    assert [image.caption for image in record.accepted] == [image.caption for image in bundled(4)]
    assert [image.rejection for image in record.images if not image.accepted] == [Rejection.BLANK]


def test_an_empty_incoming_folder_is_not_found(trainer: Trainer) -> None:
    with pytest.raises(ResourceMissing, match="put JPEG, PNG, WebP or HEIC files there first"):
        trainer.datasets.create("", "phone", "", "from-phone")


def test_all_malformed_fields_are_named_at_once(trainer: Trainer) -> None:
    with pytest.raises(InvalidRequest) as caught:
        trainer.datasets.create("projects/UPPER", "../x", "not-a-uuid", "/abs")
    assert {found.field for found in caught.value.violations} == {"parent", "dataset_id", "incoming_id", "request_id"}


def test_pages_hold_every_dataset_once_and_in_order(trainer: Trainer) -> None:
    names = [f"d{index}" for index in range(7)]
    for name in names:
        trainer.datasets.create("", name, "", "")
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        records, token = trainer.datasets.page(ProjectName("default"), PageRequest(3, token))
        seen += [record.dataset for record in records]
        pages += 1
    assert (seen, pages) == (names, 3)


def test_another_projects_dataset_is_missing_in_the_same_words(trainer: Trainer) -> None:
    trainer.datasets.create("projects/other", "cat", "", "")
    with pytest.raises(ResourceMissing) as theirs:
        trainer.datasets.get(DatasetName("default", "cat"))
    with pytest.raises(ResourceMissing) as nobodys:
        trainer.datasets.get(DatasetName("default", "dog"))
    assert str(theirs.value).replace("cat", "dog") == str(nobodys.value)
