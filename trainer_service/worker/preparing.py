"""Prepares a training: its pictures, framed; what they are called; and both, encoded once.

Shapes: C channels, H/W height and width in pixels, each picture's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.family import BaseModel
from service_kit.store import ObjectStore
from trainer_service.lifecycle import Stage
from trainer_service.training_config import TrainingConfig
from trainer_service.training_record import TrainingDataset, TrainingRecord
from trainer_service.training_store import TrainingStore
from trainer_service.worker.batches import generator
from trainer_service.worker.examples import Examples, ExampleSet, encode, encode_empty_prompt
from trainer_service.worker.framing import Framing
from trainer_service.worker.pictures import Report, TrainingPicture, class_pictures, fetch_pictures


@dataclass(frozen=True)
class Prepared:
    """What the loop learns from, and the pixels_CHW that evaluation and samples are compared with."""

    dataset: TrainingDataset
    pictures: tuple[Tensor, ...]
    examples: Examples


def prepare(
    store: ObjectStore,
    record: TrainingRecord,
    entry: BaseModelEntry,
    base: BaseModel,
    report: Report,
    stage: Callable[[Stage], None],
) -> Prepared:
    """Fetch, generate and encode what a training needs. Raises what interrupts it; `stage` is told of each stage."""
    config = record.config
    stage(Stage.FETCHING_IMAGES)
    dataset = TrainingStore(store).dataset(record.name)
    framing = Framing(config.resolution, entry.size_step, config.aspect_buckets, config.crop)
    pictures = fetch_pictures(store, record.dataset_name, dataset, framing, report)
    prior: list[Tensor] = []
    class_prompt = f"a picture of a {record.class_noun}"
    if config.prior_weight:
        stage(Stage.GENERATING_CLASS_IMAGES)
        prior += class_pictures(store, base, class_prompt, config, report)
    stage(Stage.ENCODING)
    prompts = [record.prompt(image.caption) for image in dataset.images]
    held_out, taught = held_out_and_taught(config, len(pictures))
    subject = _encoded(base, config, pictures, prompts, taught, report, mirrored=config.horizontal_flip)
    prior_set = None
    if prior:
        prior_prompts = [class_prompt] * len(prior)
        prior_set = encode(base, prior, prior_prompts, [None] * len(prior), report, config.pictures_at_once)
    examples = Examples(
        subject=subject,
        validation=_encoded(base, config, pictures, prompts, held_out, report) if held_out else subject,
        empty_prompt=encode_empty_prompt(base),
        prior=prior_set,
    )
    make_room_for_steps(base, config)
    return Prepared(dataset, tuple(picture.pixels_CHW for picture in pictures), examples)


def make_room_for_steps(base: BaseModel, config: TrainingConfig) -> None:
    """Have what the steps do not use leave the device: text encoders and autoencoder; nothing where the former learn
    too."""
    if not config.text_encoder_learning_rate:
        base.make_room()


def held_out_and_taught(config: TrainingConfig, count: int) -> tuple[list[int], list[int]]:
    """Which of the pictures are held out to validate on, and which are trained on: a function of the seed."""
    shuffled = torch.randperm(count, generator=generator(config.seed, 0)).tolist()
    return sorted(shuffled[: config.validation_images]), sorted(shuffled[config.validation_images :])


def _encoded(
    base: BaseModel,
    config: TrainingConfig,
    pictures: Sequence[TrainingPicture],
    prompts: Sequence[str],
    rows: Sequence[int],
    report: Report,
    mirrored: bool = False,
) -> ExampleSet:
    pixels = [pictures[row].pixels_CHW for row in rows]
    weights = [_loss_weight(pictures[row].mask_1HW, config.masked_weight) for row in rows]
    called = [prompts[row] for row in rows]
    if mirrored:
        pixels += [picture.flip(-1) for picture in pixels]
        weights += [None if weight is None else weight.flip(-1) for weight in weights]
        called += called
    return encode(base, pixels, called, weights, report, config.pictures_at_once)


def _loss_weight(mask_1HW: Tensor | None, outside: float) -> Tensor | None:
    """1 where the mask is 1, `outside` where it is 0."""
    return None if mask_1HW is None else outside + (1 - outside) * mask_1HW
