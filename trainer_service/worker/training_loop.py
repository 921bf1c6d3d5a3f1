"""The training loop, for every base-model family: LoRA by DreamBooth (Ruiz et al. 2022, https://arxiv.org/abs/2208.12242).

Its one rule: randomness is a function of (seed, step), so a resumed run equals an uninterrupted one. It yields what
happened; it knows no gRPC, bucket or job.

Shapes: B batch, C channels, H/W height and width, N examples.
"""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from base_models.family import BaseModel, Conditioning
from trainer_service.training_config import TrainingConfig
from trainer_service.worker.examples import Examples, ExampleSet, pick, where

ADAPTER = "subject"
_FINAL_RATE = 0.1
_MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Step:
    """A finished optimizer step. `loss` stays on the device: reading it waits for the GPU."""

    step: int
    loss: Tensor
    learning_rate: float


@dataclass(frozen=True)
class Snapshot:
    """Everything a resumed run needs, on the CPU: steps done, adapter weights, optimizer state."""

    step: int
    lora: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def train(
    base: BaseModel,
    examples: Examples,
    config: TrainingConfig,
    accelerator: Accelerator,
    resume: Snapshot | None,
    snapshot_due: Callable[[int], bool],
) -> Iterator[Step | Snapshot]:
    """Train a LoRA on `base.denoiser`, which has it while the iteration runs and is as before afterwards.

    Yields every Step, a Snapshot after those for which `snapshot_due(step)` is true, and one more at the end.
    """
    # ---- The adapter and its optimizer. A is drawn from (seed), B is zero: the first step starts from the base model.
    denoiser = base.denoiser
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        denoiser.add_adapter(
            LoraConfig(
                r=config.rank,
                lora_alpha=config.alpha,
                init_lora_weights="gaussian",
                target_modules=base.lora_modules(config.targets),
            ),
            adapter_name=ADAPTER,
        )
    try:
        named = {name: value for name, value in denoiser.named_parameters() if value.requires_grad}
        parameters = list(named.values())
        optimizer = accelerator.prepare_optimizer(
            torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
        )

        # ---- Resume: with randomness a function of the step, weights and moments are all there is to restore.
        done = 0
        if resume is not None:
            set_peft_model_state_dict(denoiser, resume.lora, adapter_name=ADAPTER)
            _restore_moments(optimizer.optimizer, named, resume.optimizer)
            done = resume.step

        # ---- The loop. `step` counts optimizer steps from 1.
        denoiser.train()
        for step in range(done + 1, config.steps + 1):
            rate = learning_rate_at(step, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            random = _generator(config.seed, step)
            with accelerator.autocast():
                losses_B = _losses(base, examples.subject, examples.empty_prompt, config, step, random)
                loss = losses_B.mean()
                if examples.prior is not None:
                    prior_B = _losses(base, examples.prior, examples.empty_prompt, config, step, random)
                    loss = loss + config.prior_weight * prior_B.mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
            optimizer.step()
            optimizer.zero_grad()
            yield Step(step, loss.detach(), rate)
            if step < config.steps and snapshot_due(step):
                yield _snapshot(step, denoiser, optimizer.optimizer, named)
        denoiser.eval()
        yield _snapshot(config.steps, denoiser, optimizer.optimizer, named)
    finally:
        denoiser.eval()
        denoiser.unload_lora()


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then a cosine from the peak to a tenth of it. `step` counts from 1."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    passed = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * passed)))


def example_order(seed: int, count: int, position: int, batch_size: int) -> list[int]:
    """Which examples the batch at `position` (in examples, from 0) holds: every epoch is a permutation of all."""
    order = []
    for place in range(position, position + batch_size):
        epoch, index = divmod(place, count)
        order.append(int(torch.randperm(count, generator=_generator(seed, -1 - epoch))[index]))
    return order


def _losses(
    base: BaseModel,
    examples: ExampleSet,
    empty_prompt: Conditioning,
    config: TrainingConfig,
    step: int,
    random: torch.Generator,
) -> Tensor:
    """Losses_B of one batch. Everything random is drawn on the CPU, so that it does not depend on the device."""
    device = examples.latents_NCHW.device
    rows = example_order(config.seed, len(examples), (step - 1) * config.batch_size, config.batch_size)
    rows_B = torch.tensor(rows, device=device)
    latents_BCHW = examples.latents_NCHW[rows_B]
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=random).to(device)
    # One timestep from each of B equal parts of the schedule: less noise in the gradient than B free draws.
    uniform_B = (torch.arange(config.batch_size) + torch.rand(config.batch_size, generator=random)) / config.batch_size
    timesteps_B = base.timesteps(uniform_B).to(device)
    dropped_B = (torch.rand(config.batch_size, generator=random) < config.caption_dropout).to(device)
    conditioning = where(~dropped_B, pick(examples.conditioning, rows_B), empty_prompt)
    noisy_BCHW = base.add_noise(latents_BCHW, noise_BCHW, timesteps_B)
    predicted_BCHW = base.predict(noisy_BCHW, timesteps_B, conditioning)
    target_BCHW = base.target(latents_BCHW, noise_BCHW, timesteps_B)
    losses_B = (predicted_BCHW.float() - target_BCHW.float()).square().mean(dim=(1, 2, 3))
    if config.min_snr_gamma:
        losses_B = losses_B * base.min_snr_weights(timesteps_B, config.min_snr_gamma)
    return losses_B


def _generator(seed: int, step: int) -> torch.Generator:
    # Hashed, because torch's CPU generator takes only the low 32 bits of what it is given.
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def _snapshot(
    step: int, denoiser: torch.nn.Module, optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter]
) -> Snapshot:
    lora = get_peft_model_state_dict(denoiser, adapter_name=ADAPTER)
    moments = {
        f"{name}.{key}": value.detach().cpu().clone()
        for name, parameter in named.items()
        for key, value in optimizer.state[parameter].items()
    }
    return Snapshot(step, {name: value.detach().cpu().clone() for name, value in lora.items()}, moments)


def _restore_moments(
    optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter], moments: dict[str, Tensor]
) -> None:
    for name, parameter in named.items():
        optimizer.state[parameter] = {
            key: moments[f"{name}.{key}"].clone().to(parameter.device) for key in ("step", "exp_avg", "exp_avg_sq")
        }
