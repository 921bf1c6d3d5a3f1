"""Low-rank training as its equations say, on nothing but torch and a network: what the loop is compared with.

Shapes: B batch, C channels, H/W height and width of latents.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer_service.training_config import TrainingConfig

Loss = Callable[[Mapping[str, Tensor], Sequence[int], Tensor, Tensor], Tensor]
"""Of replaced weights by name, the examples of a batch, their noise_BCHW and their timesteps_B."""


class PlainTraining:
    """A LoRA of the linear layers of a network, its learning rate's warm-up and decay, AdamW."""

    def __init__(self, network: Any, start: Mapping[str, Tensor], config: TrainingConfig, loss: Loss) -> None:
        """start: the values of A and B to begin with, by the names that PEFT gives them."""
        self._network, self._config, self._loss = network, config, loss
        self._layers = {name.partition(".lora_A.")[0] for name in start if ".lora_A." in name}
        self._values = {name: value.clone().requires_grad_() for name, value in start.items()}
        self._moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in start.items()}

    def step(self, step: int, rows: Sequence[int], noise_BCHW: Tensor, timesteps_B: Tensor) -> float:
        """The loss of a step, from 1, and then the step."""
        weights = {f"{layer}.weight": self._weight(layer) for layer in self._layers}
        loss = self._loss(weights, rows, noise_BCHW, timesteps_B)
        # Layers whose output nothing reads have no gradient.
        gradients = torch.autograd.grad(loss, list(self._values.values()), allow_unused=True, materialize_grads=True)
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
        rate = self._rate(step)
        with torch.no_grad():
            for (name, value), gradient in zip(self._values.items(), gradients, strict=True):
                self._adamw(step, rate, value, gradient * min(1.0, 1.0 / norm), *self._moments[name])
        return loss.item()

    def _weight(self, layer: str) -> Tensor:
        # W + alpha / r B A (Hu et al. 2021, equation 3).
        a, b = (self._values[f"{layer}.lora_{half}.subject.weight"] for half in "AB")
        scale = self._config.alpha / self._config.rank
        weight: Tensor = self._network.get_submodule(layer).weight
        return weight + scale * (b @ a)

    def _rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a tenth."""
        peak, warmup, steps = self._config.learning_rate, self._config.warmup_steps, self._config.steps
        if step <= warmup:
            return peak * step / warmup
        return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))))

    def _adamw(self, step: int, rate: float, value: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> None:
        """Loshchilov and Hutter 2019, algorithm 2."""
        first.mul_(0.9).add_(0.1 * gradient)
        second.mul_(0.99).add_(0.01 * gradient.square())
        value -= rate * 1e-3 * value
        value -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)
