"""What is trained: low-rank layers on a base model, the optimizer of each part, and the average of their weights.

Its one rule: the base model wears the layers for as long as the context lasts, and is as before afterwards.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from accelerate import Accelerator
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from prodigyopt import Prodigy
from torch import Tensor

from base_models.adapters.worn_adapters import take_off
from base_models.family import BaseModel
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.fused_lora import fuse

_ADAPTER = "subject"
_MAX_GRADIENT_NORM = 1.0
_BETAS, _WEIGHT_DECAY = (0.9, 0.99), 1e-3
# What Prodigy keeps in its parameter group rather than in tensors.
_PRODIGY_STATE = ("d", "d_max", "d_numerator", "k")

Values = dict[str, Tensor]
"""The trained tensors by name, `{part}.{parameter}`, on the CPU."""


@dataclass(frozen=True)
class Weights:
    """Everything that training changes, on the CPU. `average` is empty where none is kept."""

    own: Values
    average: Values
    optimizer: dict[str, Tensor]


class Trainee:
    """A base model with something to learn, used as a context."""

    def __init__(self, base: BaseModel, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.base = base
        self._config = config
        self._accelerator = accelerator
        self._parts: dict[str, Any] = {}
        self._named: dict[str, torch.nn.Parameter] = {}
        self._optimizers: dict[str, Any] = {}
        self._average: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        config = self._config
        (denoiser_name, denoiser), *others = self.base.adaptable.items()
        try:
            self._wear_adapter(denoiser_name, denoiser, self.base.lora_modules(config.targets), config.learning_rate)
            if config.text_encoder_learning_rate:
                targets = self.base.text_encoder_lora_modules()
                for name, module in others:
                    self._wear_adapter(name, module, targets, config.text_encoder_learning_rate)
        except BaseException:
            self._undress()
            raise
        if config.ema_decay:
            self._average = {name: value.detach().clone() for name, value in self._named.items()}
        self._train(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undress()

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Everything that is trained, in a fixed order."""
        return list(self._named.values())

    def step(self, factor: float, finite: Tensor) -> None:
        """Take an optimizer step with the gradients that lie ready, or none where they are not finite; clear them.

        factor: of the configured learning rates, by schedule. finite: a scalar on the device. AdamW does not read it,
        because that would wait for the GPU; Prodigy waits for the GPU anyway.
        """
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = factor * group["peak"]
            if isinstance(optimizer.optimizer, Prodigy):
                if finite:
                    optimizer.step()
            else:
                if self._accelerator.scaler is None:
                    # What torch's own gradient scaler sets: the fused kernel then leaves weights and moments alone.
                    optimizer.optimizer.found_inf = (~finite).float()
                optimizer.step()
            optimizer.zero_grad()
        if self._average:
            torch._foreach_lerp_(
                list(self._average.values()), [p.detach() for p in self.parameters], 1 - self._config.ema_decay
            )

    def checkpoint_gradients(self) -> None:
        """Compute activations again in the backward pass from now on, rather than keep them."""
        self.base.denoiser.enable_gradient_checkpointing()

    def clip(self) -> Tensor:
        """Bound the norm of all gradients together; return what it was."""
        norm: Tensor = self._accelerator.clip_grad_norm_(self.parameters, _MAX_GRADIENT_NORM)
        return norm

    def weights(self) -> Weights:
        """A copy of everything that training changes."""
        return Weights(_copied(self._named), _copied(self._average), self._optimizer_state())

    def restore(self, weights: Weights) -> None:
        """Go back to an earlier copy."""
        _fill(self._named, weights.own)
        _fill(self._average, weights.average)
        for part, optimizer in self._optimizers.items():
            self._restore_optimizer(part, optimizer.optimizer, weights.optimizer)

    def drawn_values(self) -> Values:
        """A copy of the weights that count: the average, where one is kept."""
        return _copied(self._average or self._named)

    @contextmanager
    def drawing(self, values: Values | None = None) -> Iterator[None]:
        """The base model as it would draw with these weights (default: those that count), for as long as it lasts."""
        own = _copied(self._named)
        self._train(False)
        _fill(self._named, values if values is not None else self._average or self._named)
        try:
            with torch.no_grad():
                yield
        finally:
            _fill(self._named, own)
            self._train(True)

    def adapter(self) -> dict[str, dict[str, Tensor]]:
        """A copy, as PEFT state dicts by part, of what the base model wears now."""
        return {
            part: _copied(get_peft_model_state_dict(module, adapter_name=_ADAPTER, save_embedding_layers=False))
            for part, module in self._parts.items()
        }

    def _wear_adapter(self, part: str, module: Any, targets: list[str], rate: float) -> None:
        config = self._config
        # A is drawn from (seed), B is zero: the first step starts from the base model.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            lora = LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                init_lora_weights="gaussian",
                target_modules=targets,
                use_dora=config.adapter_type == "dora",
            )
            module.add_adapter(lora, adapter_name=_ADAPTER)
        # peft makes them of the base's dtype; what is added to a number of bfloat16 in small steps is lost.
        cast_training_params(module, torch.float32)
        fuse(module, _ADAPTER)
        self._parts[part] = module
        named = {f"{part}.{name}": value for name, value in module.named_parameters() if value.requires_grad}
        self._named |= named
        group = {"params": list(named.values()), "lr": rate, "peak": rate}
        if config.optimizer == "prodigy":
            optimizer: torch.optim.Optimizer = Prodigy([group], safeguard_warmup=True, use_bias_correction=True)
        else:
            optimizer = torch.optim.AdamW([group], betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True)
        self._optimizers[part] = self._accelerator.prepare_optimizer(optimizer)

    def _undress(self) -> None:
        self._train(False)
        self.base.denoiser.disable_gradient_checkpointing()
        take_off(self._parts)

    def _train(self, training: bool) -> None:
        for module in self._parts.values():
            module.train(training)

    def _optimizer_state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for part, optimizer in self._optimizers.items():
            for name, parameter in self._of(part):
                for key, value in optimizer.optimizer.state[parameter].items():
                    state[f"{name}.{key}"] = torch.as_tensor(value).detach().cpu().clone()
            group = optimizer.optimizer.param_groups[0]
            for key in _PRODIGY_STATE:
                if key in group:
                    state[f"{part}.{key}"] = torch.tensor(group[key], dtype=torch.float64)
        return state

    def _restore_optimizer(self, part: str, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
        for name, parameter in self._of(part):
            kept = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            optimizer.state[parameter] = {
                # Prodigy counts steps in a plain number.
                key: value.item()
                if key == "step" and isinstance(optimizer, Prodigy)
                else value.clone().to(parameter.device)
                for key, value in kept.items()
            }
        for key in _PRODIGY_STATE:
            if f"{part}.{key}" in state:
                value = state[f"{part}.{key}"].item()
                optimizer.param_groups[0][key] = int(value) if key == "k" else value

    def _of(self, part: str) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, parameter) for name, parameter in self._named.items() if name.startswith(f"{part}.")]


def _copied(values: Mapping[str, Tensor]) -> Values:
    return {name: value.detach().cpu().clone() for name, value in values.items()}


@torch.no_grad()
def _fill(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(values[name])
