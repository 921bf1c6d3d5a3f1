"""Pictures on their way to a dataset, and pages on their way back."""

import io

import pytest
from client_fakes import unavailable
from PIL import Image

import personae
from personae.pictures import gather

MEBIBYTE = 1024 * 1024


def parts(messages):
    return [message.WhichOneof("part") for message in messages]


def test_pictures_travel_in_chunks_of_at_most_a_mebibyte(client, trainer):
    large = bytes(2 * MEBIBYTE + 1)
    client.create_dataset(pictures=[large, b"small"])
    (messages,) = trainer.requests["UploadImages"]
    assert parts(messages) == ["header", "image", "chunk", "chunk", "chunk", "image", "chunk"]
    assert [len(message.chunk) for message in messages if message.chunk] == [MEBIBYTE, MEBIBYTE, 1, 5]
    assert messages[1].image.size_bytes == len(large)


def test_a_folder_is_sent_in_order_with_the_captions_beside_it(client, trainer, tmp_path):
    for name in ("b.png", "a.JPG", "notes.md"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b.txt").write_text("happy,\n blue background\n")
    dataset = client.create_dataset("mine", pictures=tmp_path)
    assert dataset.name == "projects/default/datasets/mine"
    assert [(image.filename, image.caption) for image in dataset.images] == [
        ("a.JPG", ""),
        ("b.png", "happy, blue background"),
    ]


def test_a_folder_s_masks_and_heic_files_are_sent_too(client, trainer, tmp_path):
    for name in ("a.HEIC", "a_mask.png", "b.heif"):
        (tmp_path / name).write_bytes(b"x")
    client.create_dataset(pictures=tmp_path)
    (messages,) = trainer.requests["UploadImages"]
    sent = [message.image.filename for message in messages if message.WhichOneof("part") == "image"]
    assert sent == ["a.HEIC", "a_mask.png", "b.heif"]


def test_a_folder_of_masks_alone_is_refused(client, tmp_path):
    (tmp_path / "a_mask.png").write_bytes(b"x")
    with pytest.raises(personae.InvalidRequest, match=r"holds no \.heic"):
        client.create_dataset(pictures=tmp_path)


def test_pillow_images_are_sent_as_png(client, trainer):
    client.create_dataset(pictures=[Image.new("RGB", (3, 2), "red")])
    (messages,) = trainer.requests["UploadImages"]
    assert Image.open(io.BytesIO(messages[2].chunk)).size == (3, 2)


def test_refused_pictures_are_reported_not_raised(client, tmp_path):
    for name in ("a.png", "broken.png"):
        (tmp_path / name).write_bytes(b"x")
    dataset = client.create_dataset(pictures=tmp_path)
    assert dataset.ready
    assert [(image.filename, image.rejection) for image in dataset.rejected] == [("broken.png", "truncated")]


def test_a_cut_upload_is_sent_again_from_the_start(client, trainer):
    trainer.instead["UploadImages"] = [unavailable()]
    client.create_dataset(pictures=[b"one", b"two"])
    first, second = trainer.requests["UploadImages"]
    assert first == second


@pytest.mark.parametrize("pictures", ["missing.png", []])
def test_no_pictures_are_refused_before_anything_is_sent(client, trainer, pictures):
    with pytest.raises(personae.InvalidRequest, match="pictures"):
        client.create_dataset(pictures=pictures)
    assert not trainer.requests


def test_an_empty_folder_is_refused_by_its_name(client, tmp_path):
    with pytest.raises(personae.InvalidRequest, match=tmp_path.name):
        client.create_dataset(pictures=tmp_path)


def test_a_listing_goes_over_all_pages(client, trainer):
    trainer.pages = [["a", "b"], [], ["c"]]
    assert [dataset.name for dataset in client.datasets()] == ["a", "b", "c"]


def test_a_picture_that_cannot_be_read_is_an_error_of_this_machine(client, tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    gathered = gather(tmp_path)
    (tmp_path / "b.png").unlink()
    monkeypatch.setattr("personae.client.gather", lambda sources: gathered)
    monkeypatch.setattr("personae.aio.client.gather", lambda sources: gathered)
    with pytest.raises(FileNotFoundError, match=r"b\.png"):
        client.create_dataset(pictures=tmp_path)
