"""Runs of the training loop for tests: what it yielded, gathered; and what it learns from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, equal

from base_models.catalog import BaseModelEntry
from base_models.family import BaseModel
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.autocast import accelerator_for
from trainer_service.worker.examples import Examples, encode, encode_empty_prompt
from trainer_service.worker.training_loop import Learned, Moment, Snapshot, Step, Validated, train

_COUNT = 4


def bundled_examples(base: BaseModel, entry: BaseModelEntry) -> Examples:
    """A few of the base model's pictures, encoded."""
    paths: list[Path] = sorted((entry.folder / "sets" / "micah-b" / "train").glob("*.png"))[:_COUNT]
    pixels = [torch.from_numpy(np.array(Image.open(path).convert("RGB"), dtype=np.float32)) for path in paths]
    pixels_NCHW = torch.stack(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    prompts = [f"a picture of sks character, {path.with_suffix('.txt').read_text().strip()}" for path in paths]
    subject = encode(base, list(pixels_NCHW), prompts, [None] * _COUNT, lambda done, total: None)
    return Examples(subject, subject, encode_empty_prompt(base), prior=None)


@dataclass
class Run:
    """Losses by step; every other moment but SampleDue, in order."""

    losses: dict[int, float] = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)

    def all(self, kind: type) -> list:
        return [moment for moment in self.moments if isinstance(moment, kind)]

    @property
    def snapshots(self) -> list[Snapshot]:
        return self.all(Snapshot)

    @property
    def validations(self) -> list[Validated]:
        return self.all(Validated)

    @property
    def learned(self) -> Learned:
        return self.all(Learned)[0]


def run(
    base: BaseModel,
    examples: Examples,
    config: TrainingConfig,
    resume: Snapshot | None = None,
    stop_at: int = 0,
    on_moment: Callable[[Moment], None] = lambda moment: None,
) -> Run:
    """Run to the end, or abandon after the snapshot of step `stop_at` where one is given."""
    found = Run()
    for moment in train(
        base, examples, config, accelerator_for(config, torch.device("cpu")), resume, lambda step: step == stop_at
    ):
        on_moment(moment)
        if isinstance(moment, Step):
            found.losses |= {reading.step: reading.loss for reading in moment.readings}
        found.moments.append(moment)
        if isinstance(moment, Snapshot) and moment.step == stop_at:
            break
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are bit-equal."""
    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)


def same_state(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots would go on alike."""
    pairs = (
        (one.weights.own, other.weights.own),
        (one.weights.average, other.weights.average),
        (one.weights.optimizer, other.weights.optimizer),
        (one.best, other.best),
    )
    return one.step == other.step and one.standing == other.standing and all(same(*pair) for pair in pairs)
