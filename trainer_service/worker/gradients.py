"""The gradients of a step: its examples in parts that fit into memory, shared out among processes, and added up.

Its one rule: how a step is divided, and among how many, does not change what it computes but for rounding.
"""

import logging

import torch
from accelerate import Accelerator
from torch import Tensor

from trainer_service.training_config import TrainingConfig
from trainer_service.worker.batches import Draw, draws, generator
from trainer_service.worker.examples import Examples, ExampleSet, chunks_of_one_shape
from trainer_service.worker.losses import losses
from trainer_service.worker.processes import added_up, exchange
from trainer_service.worker.trainee import Trainee

_logger = logging.getLogger(__name__)


class OutOfMemory(Exception):
    """The device's memory does not suffice, not even for one picture at a time with activations computed twice."""


class Gradients:
    """Computes them into the parameters. `loss` and `finite` are scalars on the device, of the latest step."""

    def __init__(self, trainee: Trainee, examples: Examples, config: TrainingConfig, accelerator: Accelerator) -> None:
        self._trainee, self._examples, self._config, self._accelerator = trainee, examples, config, accelerator
        self._part = config.batch_size
        self._smallest = False
        self.loss = torch.zeros((), device=trainee.base.device)
        self.finite = torch.ones((), dtype=torch.bool, device=trainee.base.device)
        if config.gradient_checkpointing == "always":
            trainee.checkpoint_gradients()

    def probe(self) -> bool:
        """Try the first step where that is left to us; True if gradient checkpointing had to be switched on."""
        if self._config.gradient_checkpointing != "automatic" or self._trainee.base.device.type != "cuda":
            return False
        fits = self._fits(1)
        self._clear()
        if not fits:
            self._trainee.checkpoint_gradients()
        return not fits

    def compute(self, step: int) -> bool:
        """Compute a step's gradients; True if memory ran out and they were computed in smaller parts from now on.

        Raises OutOfMemory where memory ran out before.
        """
        if self._fits(step):
            return False
        self._clear()
        if self._smallest:
            raise OutOfMemory(f"memory ran out at step {step} again")
        self._smallest, self._part = True, 1
        if self._config.gradient_checkpointing != "never":
            self._trainee.checkpoint_gradients()
        self.compute(step)
        return True

    def _fits(self, step: int) -> bool:
        """Compute a step's gradients; False where memory ran out, in this process or in another one."""
        ran_out = False
        try:
            self._compute_share(step)
        except torch.OutOfMemoryError as error:
            _logger.warning("step %d: %s", step, error)
            ran_out = True
        if any(exchange(ran_out)):
            return False
        self._reduce()
        norm = self._trainee.clip()
        self.finite = torch.isfinite(self.loss)
        # A loss scaler finds, and answers, overflowing gradients itself.
        if self._accelerator.scaler is None:
            self.finite = self.finite & torch.isfinite(norm)
        return True

    def _compute_share(self, step: int) -> None:
        random = generator(self._config.seed, step)
        self.loss = self._backward(self._examples.subject, step, 1.0, random)
        if self._examples.prior is not None:
            self.loss = self.loss + self._backward(self._examples.prior, step, self._config.prior_weight, random)

    def _backward(self, examples: ExampleSet, step: int, weight: float, random: torch.Generator) -> Tensor:
        config, accelerator = self._config, self._accelerator
        count = config.batch_size * config.gradient_accumulation
        drawn = draws(
            examples, config.seed, step, count, config.batch_size, config.caption_dropout, config.noise_offset, random
        )
        own = drawn[accelerator.process_index :: accelerator.num_processes]
        total = torch.zeros((), device=self._trainee.base.device)
        for part in self._parts(examples, own):
            with accelerator.autocast():
                losses_B = losses(self._trainee.base, examples, part, self._examples.empty_prompt, config)
                loss = weight * losses_B.sum() / count
            accelerator.backward(loss)
            total += loss.detach()
        return total

    def _parts(self, examples: ExampleSet, drawn: list[Draw]) -> list[list[Draw]]:
        shapes = examples.shapes
        places = chunks_of_one_shape([shapes[draw.row] for draw in drawn], range(len(drawn)), self._part)
        return [[drawn[place] for place in part] for part in places]

    def _reduce(self) -> None:
        """Add up the processes' shares in one message: low-rank gradients are small."""
        if self._accelerator.num_processes == 1:
            return
        parameters = self._trainee.parameters
        for parameter in parameters:
            # A process without an example has none.
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [self.loss.reshape(1)])
        summed = added_up(flat)
        *parts, loss = summed.split([gradient.numel() for gradient in gradients] + [1])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        self.loss = loss[0]

    def _clear(self) -> None:
        for parameter in self._trainee.parameters:
            parameter.grad = None
        if self._trainee.base.device.type == "cuda":
            torch.cuda.empty_cache()
