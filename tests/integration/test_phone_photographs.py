"""Photographs as phones make them go through in one upload, are stored upright and small, and give nobody away."""

import io

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from personae.v1 import dataset_pb2
from personae.v1 import trainer_pb2 as pb
from service_kit import schema
from service_kit.names import DatasetName
from tests.integration.trainer_calls import CALL_S, TrainerCalls, unique
from tests.real_store import RealStore

Report = dataset_pb2.ImageReport
ORIENTATION, GPS, MAKE = 0x0112, 0x8825, 0x010F
CHUNK_BYTES = 1024 * 1024


def scene(width: int, height: int, seed: int) -> Image.Image:
    """Something like a photograph: light that falls off, soft shapes of several sizes, fine detail, grain."""
    random = np.random.default_rng(seed)
    values = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((4, 70), (15, 35), (60, 25), (240, 20)):
        coarse = Image.fromarray(random.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        values += weight / 150 * np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    grain = random.normal(0, 6, (256, 256, 1)).astype(np.float32)
    values += np.tile(grain, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def tiled(image: Image.Image) -> Image.Image:
    """Four by four of it: as much work to decode as a photograph of that size, and much less to make."""
    return Image.fromarray(np.tile(np.asarray(image), (4, 4, 1)))


def private() -> Image.Exif:
    """What a phone writes beside a photograph, and that it was held upright."""
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = 6, "Secretphone"
    exif.get_ifd(GPS).update({1: "N", 2: (48.0, 51.0, 30.0), 3: "E", 4: (2.0, 17.0, 40.0)})
    return exif


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_png() -> bytes:
    """16 bits of grey."""
    return encoded(Image.fromarray(np.asarray(scene(900, 700, 5).convert("L")).astype(np.uint16) * 257), "PNG")


def photographs() -> dict[str, bytes]:
    pillow_heif.register_heif_opener()
    twelve, fifty = tiled(scene(1008, 756, 1)), tiled(scene(2040, 1530, 2))
    return {
        "IMG_0001.JPG": encoded(twelve, "JPEG", quality=90, exif=private()),
        "IMG_0002.jpg": encoded(fifty, "JPEG", quality=80, exif=private()),
        "IMG_0003.MPO": encoded(
            scene(1200, 1600, 3), "MPO", save_all=True, append_images=[scene(1200, 1600, 4)], exif=private()
        ),
        "scan.jpg": encoded(scene(1000, 800, 6).convert("CMYK"), "JPEG"),
        "deep.png": deep_png(),
        "IMG_0004.HEIC": encoded(
            scene(1024, 768, 7), "HEIF", exif=private().tobytes(), enc_params={"preset": "ultrafast"}
        ),
        "sticker.webp": encoded(scene(800, 800, 8), "WEBP", exif=private()),
        # Shared through a messenger: the first one again.
        "received.jpg": encoded(twelve.transpose(Image.Transpose.ROTATE_270).resize((960, 1280)), "JPEG", quality=70),
    }


def messages(dataset: str, files: dict[str, bytes]):
    yield pb.UploadImagesRequest(header=pb.UploadImagesRequest.Header(dataset=dataset))
    for filename, body in files.items():
        yield pb.UploadImagesRequest(image=pb.UploadImagesRequest.Image(filename=filename, size_bytes=len(body)))
        for start in range(0, len(body), CHUNK_BYTES):
            yield pb.UploadImagesRequest(chunk=body[start : start + CHUNK_BYTES])


@pytest.mark.slow
def test_real_photographs_go_through_and_give_nobody_away(trainer: TrainerCalls, real_store: RealStore) -> None:
    files = photographs()
    created = trainer.stub.CreateDataset(pb.CreateDatasetRequest(dataset_id=unique("phone")), timeout=CALL_S).dataset
    # Some seconds of work; a machine that does other things too takes minutes.
    report = trainer.stub.UploadImages(messages(created.name, files), timeout=5 * CALL_S).dataset.report
    found = {image.filename: image for image in report.images}
    assert list(found) == list(files)
    shown = {
        name: (image.source_format, image.source_width, image.source_height, image.width, image.height)
        for name, image in found.items()
    }
    assert shown == {
        "IMG_0001.JPG": ("JPEG", 4032, 3024, 1536, 2048),
        "IMG_0002.jpg": ("JPEG", 8160, 6120, 1536, 2048),
        "IMG_0003.MPO": ("JPEG", 1200, 1600, 1600, 1200),
        "scan.jpg": ("JPEG", 1000, 800, 1000, 800),
        "deep.png": ("PNG", 900, 700, 900, 700),
        "IMG_0004.HEIC": ("HEIF", 768, 1024, 768, 1024),
        "sticker.webp": ("WEBP", 800, 800, 800, 800),
        "received.jpg": ("JPEG", 960, 1280, 960, 1280),
    }
    turned = {name for name, image in found.items() if "EXIF orientation applied" in image.conversions}
    assert turned == {"IMG_0001.JPG", "IMG_0002.jpg", "IMG_0003.MPO", "IMG_0004.HEIC", "sticker.webp"}
    assert "CMYK converted to RGB" in found["scan.jpg"].conversions
    assert "16-bit grey converted to RGB" in found["deep.png"].conversions
    large = {name for name, image in found.items() if Report.WARNING_LARGE in image.warnings}
    assert large == {"IMG_0001.JPG", "IMG_0002.jpg"}
    assert {name for name, image in found.items() if not image.accepted} == {"received.jpg"}
    assert found["received.jpg"].rejection == Report.REJECTION_NEAR_DUPLICATE
    assert "IMG_0001.JPG" in found["received.jpg"].detail
    assert any("received.jpg" in said for said in report.advice)
    assert_nothing_private_is_stored(real_store, created.name)


def assert_nothing_private_is_stored(real_store: RealStore, dataset: str) -> None:
    store, name = real_store.store, DatasetName.parse(dataset)
    keys = list(store.keys(f"{dataset}/"))
    assert len(keys) == 1 + 7
    for key in keys:
        body = store.get(key).body
        assert b"Secretphone" not in body
        if key != schema.dataset_record(name):
            with Image.open(io.BytesIO(body)) as picture:
                picture.load()
                assert (picture.format, picture.mode, dict(picture.getexif()), picture.info) == ("PNG", "RGB", {}, {})
