"""Pictures for a training: read from the bucket, framed, as tensors; and generated class pictures, made once and kept.

Shapes: B batch, C channels, H/W height and width. Pixels are in [-1, 1], masks in [0, 1].
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from base_models.family import BaseModel
from service_kit import schema
from service_kit.names import DatasetName
from service_kit.store import ObjectMissing, ObjectStore
from trainer_service.training_config import TrainingConfig
from trainer_service.training_record import TrainingDataset, TrainingImage
from trainer_service.worker.framing import Framing
from trainer_service.worker.verified_reads import read_verified

# What lies in the bucket was encoded by us: by the picture doctor, or below.
_FORMATS = ("PNG",)
Report = Callable[[int, int], None]
"""Called with units finished and units in all; may raise to interrupt."""


@dataclass(frozen=True)
class TrainingPicture:
    """A picture as it is trained on, and its mask: 1 where the subject is, 0 where it is not."""

    pixels_CHW: Tensor
    mask_1HW: Tensor | None


def fetch_pictures(
    store: ObjectStore, dataset: DatasetName, snapshot: TrainingDataset, framing: Framing, report: Report
) -> list[TrainingPicture]:
    """A training's pictures in the snapshot's order; they differ in size where `framing` has buckets.

    Raises DamagedObject.
    """
    pictures = []
    for index, image in enumerate(snapshot.images):
        pictures.append(_framed(store, dataset, image, framing))
        report(index + 1, len(snapshot.images))
    return pictures


def _framed(store: ObjectStore, dataset: DatasetName, image: TrainingImage, framing: Framing) -> TrainingPicture:
    picture = _opened(store, schema.dataset_image(dataset, image.digest), image.digest, "RGB")
    mask = None
    if image.mask_digest:
        mask = _opened(store, schema.dataset_mask(dataset, image.mask_digest), image.mask_digest, "L")
        # Both were scaled down to what is stored, perhaps from different sizes.
        mask = mask.resize(picture.size, Image.Resampling.BILINEAR)
    size = framing.size_for(picture.size)
    box = framing.box(np.asarray(picture.convert("L")), None if mask is None else np.asarray(mask))
    pixels_CHW = as_pixels(picture.resize(size, Image.Resampling.LANCZOS, box=box))
    if mask is None:
        return TrainingPicture(pixels_CHW, None)
    # LANCZOS would overshoot at the mask's edges.
    values_HW = np.array(mask.resize(size, Image.Resampling.BILINEAR, box=box), dtype=np.float32)
    return TrainingPicture(pixels_CHW, torch.from_numpy(values_HW).unsqueeze(0) / 255)


def _opened(store: ObjectStore, key: str, digest: str, mode: str) -> Image.Image:
    return Image.open(io.BytesIO(read_verified(store, key, digest)), formats=_FORMATS).convert(mode)


def class_pictures(store: ObjectStore, base: BaseModel, prompt: str, config: TrainingConfig, report: Report) -> Tensor:
    """Pixels_BCHW of as many pictures of the class as the config asks, generated where the bucket has none yet.

    Picture i is made with seed i, so every training of the same base model and class shares them.
    """
    count, resolution = config.prior_images, config.resolution
    prompt_digest = hashlib.sha256(f"{prompt}/{resolution}".encode()).hexdigest()
    keys = [schema.class_image(base.digest, prompt_digest, index) for index in range(count)]
    found: dict[int, Tensor] = {}
    for index, key in enumerate(keys):
        try:
            found[index] = as_pixels(Image.open(io.BytesIO(store.get(key).body), formats=_FORMATS))
        except ObjectMissing:
            continue
    missing = [index for index in range(count) if index not in found]
    for start in range(0, len(missing), config.pictures_at_once):
        report(len(found), count)
        seeds = missing[start : start + config.pictures_at_once]
        made_BCHW = base.generate([prompt] * len(seeds), seeds, resolution, lambda: report(len(found), count)).cpu()
        for seed, pixels_CHW in zip(seeds, made_BCHW, strict=True):
            picture = as_picture(pixels_CHW)
            file = io.BytesIO()
            picture.save(file, "PNG")
            store.put(keys[seed], file.getvalue())
            # From the rounded picture, so that the first training sees what the next ones will.
            found[seed] = as_pixels(picture)
    report(count, count)
    return torch.stack([found[index] for index in range(count)])


def as_pixels(picture: Image.Image) -> Tensor:
    """Pixels_CHW of a file's picture."""
    values_HWC = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32))
    return values_HWC.permute(2, 0, 1) / 127.5 - 1


def as_picture(pixels_CHW: Tensor) -> Image.Image:
    """Pixels rounded to what a file can hold."""
    values_HWC = ((pixels_CHW.permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
    return Image.fromarray(values_HWC.numpy().astype(np.uint8))
