"""Validation: the loss on noise and timesteps that never change, so that two numbers differ by the weights alone.

Over pictures that were held out where there are some, else over training pictures: that tells how well they are
learned, not whether too well.
"""

import torch
from accelerate import Accelerator

from base_models.family import BaseModel
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.batches import draws, generator
from trainer_service.worker.examples import Examples, chunks_of_one_shape
from trainer_service.worker.losses import losses
from trainer_service.worker.processes import exchange

# Enough for the noise of a single timestep to average out, and a second or two on a CPU.
_LEAST, _MOST = 16, 64


class Validation:
    """What is drawn, once, for all validations of a training."""

    def __init__(self, base: BaseModel, examples: Examples, config: TrainingConfig, accelerator: Accelerator) -> None:
        self._base, self._examples, self._config, self._accelerator = base, examples, config, accelerator
        count = min(max(len(examples.validation), _LEAST), _MOST)
        self._draws = draws(examples.validation, 0, 1, count, config.batch_size, 0.0, 0.0, generator(0, 0))

    @torch.no_grad()
    def loss(self) -> float:
        """Mean loss of the network as it is now, not weighted by timestep. Process 0's, in all processes."""
        shapes = self._examples.validation.shapes
        total = torch.zeros((), device=self._base.device)
        by_place = chunks_of_one_shape(
            [shapes[draw.row] for draw in self._draws], range(len(self._draws)), self._config.batch_size
        )
        for places in by_place:
            drawn = [self._draws[place] for place in places]
            with self._accelerator.autocast():
                losses_B = losses(
                    self._base,
                    self._examples.validation,
                    drawn,
                    self._examples.empty_prompt,
                    self._config,
                    weighted=False,
                )
            total += losses_B.sum()
        return float(exchange(total.item())[0]) / len(self._draws)
