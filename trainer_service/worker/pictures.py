"""Pictures for a training: read from the bucket, cropped, as tensors; and generated class pictures, made once and kept.

Shapes: B batch, C channels, H/W height and width. Pixels are in [-1, 1].
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from base_models.family import BaseModel
from service_kit import schema
from service_kit.names import DatasetName
from service_kit.store import ObjectMissing, ObjectStore
from trainer_service.training_record import TrainingDataset
from trainer_service.worker.framing import Framing

_CLASS_BATCH = 8
Report = Callable[[int, int], None]
"""Called with units finished and units in all; may raise to interrupt."""


def fetch_pictures(
    store: ObjectStore, dataset: DatasetName, snapshot: TrainingDataset, framing: Framing, report: Report
) -> list["TrainingPicture"]:
    """Pixels_BCHW of a training's pictures: the centre square of each, at the training's resolution."""
    pictures = []
    resolution = framing.resolution
    for index, image in enumerate(snapshot.images):
        body = store.get(schema.dataset_image(dataset, image.digest)).body
        picture = ImageOps.fit(Image.open(io.BytesIO(body)), (resolution, resolution), Image.Resampling.LANCZOS)
        pictures.append(TrainingPicture(_pixels(picture), None))
        report(index + 1, len(snapshot.images))
    return pictures


@dataclass(frozen=True)
class TrainingPicture:
    pixels_CHW: Tensor
    mask_1HW: Tensor | None


def class_pictures(
    store: ObjectStore, base: BaseModel, prompt: str, count: int, resolution: int, report: Report
) -> Tensor:
    """Pixels_BCHW of `count` pictures of the class, generated where the bucket does not have them yet.

    Picture i is made with seed i, so every training of the same base model and class shares them.
    """
    prompt_digest = hashlib.sha256(f"{prompt}/{resolution}".encode()).hexdigest()
    keys = [schema.class_image(base.digest, prompt_digest, index) for index in range(count)]
    found: dict[int, Tensor] = {}
    for index, key in enumerate(keys):
        try:
            found[index] = _pixels(Image.open(io.BytesIO(store.get(key).body)))
        except ObjectMissing:
            continue
    missing = [index for index in range(count) if index not in found]
    for start in range(0, len(missing), _CLASS_BATCH):
        report(len(found), count)
        seeds = missing[start : start + _CLASS_BATCH]
        made_BCHW = base.generate([prompt] * len(seeds), seeds, resolution, lambda: report(len(found), count)).cpu()
        for seed, pixels_CHW in zip(seeds, made_BCHW, strict=True):
            picture = _picture(pixels_CHW)
            file = io.BytesIO()
            picture.save(file, "PNG")
            store.put(keys[seed], file.getvalue())
            # From the rounded picture, so that the first training sees what the next ones will.
            found[seed] = _pixels(picture)
    report(count, count)
    return torch.stack([found[index] for index in range(count)])


def _pixels(picture: Image.Image) -> Tensor:
    values_HWC = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32))
    return values_HWC.permute(2, 0, 1) / 127.5 - 1


def _picture(pixels_CHW: Tensor) -> Image.Image:
    values_HWC = ((pixels_CHW.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
    return Image.fromarray(values_HWC.numpy().astype(np.uint8))
