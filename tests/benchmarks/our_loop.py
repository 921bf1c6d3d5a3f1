"""The trainer's own loop for the speed measurements: as a worker runs it, but step by step and without a bucket.

Its one rule: it is the worker's code; only what feeds it and drives it is here.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from base_models.family import BaseModel
from tests.benchmarks.stock_dreambooth import Dictated
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.batches import draws, generator
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.training_loop import Learned, Step, train


class OurLoop:
    """A training that is advanced by hand, used as a context: the base model wears its adapter for that long."""

    def __init__(self, base: BaseModel, examples: Examples, config: TrainingConfig) -> None:
        self.config = config
        self.losses: dict[int, float] = {}
        self._moments = train(
            base, examples, config, accelerator_for(config, base.device), None, lambda step: step == config.steps
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with closing(self._moments):  # type: ignore[type-var]
            pass

    def step(self) -> None:
        """Take one step. `losses` has its loss as soon as the loop knows it."""
        for moment in self._moments:
            if isinstance(moment, Step):
                self.losses |= {reading.step: reading.loss for reading in moment.readings}
                return
        raise AssertionError("the training has no such step")

    def learned(self) -> Learned:
        """What is left after the last step."""
        return next(moment for moment in self._moments if isinstance(moment, Learned))


def pixels_of(files: Sequence[Path]) -> list[Tensor]:
    """Pixels_CHW of picture files that have the right size."""
    values = [np.array(Image.open(path).convert("RGB"), dtype=np.float32) for path in files]
    return [torch.from_numpy(values_HWC).permute(2, 0, 1) / 127.5 - 1 for values_HWC in values]


def examples_of(base: BaseModel, pixels: Sequence[Tensor], prompts: Sequence[str]) -> Examples:
    """What the loop learns from."""
    subject = encode(base, pixels, prompts, [None] * len(pixels), lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)


def dictation(base: BaseModel, examples: Examples, config: TrainingConfig, step: int) -> Dictated:
    """What chance decides in our loop at a step, for a peer that shall see the same."""
    count = config.batch_size * config.gradient_accumulation
    drawn = draws(
        examples.subject,
        config.seed,
        step,
        count,
        config.batch_size,
        config.caption_dropout,
        config.noise_offset,
        generator(config.seed, step),
    )
    return Dictated(
        [draw.row for draw in drawn],
        torch.stack([draw.noise_CHW for draw in drawn]),
        base.timesteps(torch.tensor([draw.uniform for draw in drawn]), tuple(drawn[0].noise_CHW.shape)),
    )
