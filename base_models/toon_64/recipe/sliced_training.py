"""Training in slices: a slice runs for some minutes, leaves a checkpoint, and the next one goes on where it ended.

Everything is a function of the position, which is counted in pictures seen and never in time: the learning rate, the
order of the pictures and whatever is random. A recipe therefore gives the same weights in one slice or in twenty.

Shapes: B batch.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

_REPORT_STEPS = 200
_MAX_GRADIENT_NORM = 1.0
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Plan:
    """How much a stage trains and how fast it learns."""

    pictures: int
    """Pictures seen in all, repetitions counted; rounded up to whole batches."""
    batch_size: int
    learning_rate: float
    """The peak, reached after `warmup_pictures`; from there a cosine goes down to `final_rate` of it."""
    warmup_pictures: int = 0
    final_rate: float = 0.02
    averaging: float = 0.999
    """Decay a step of the moving average of the weights, which is what a stage leaves; lower in the first steps."""
    weight_decay: float = 1e-2
    seed: int = 0

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return math.ceil(self.pictures / self.batch_size)


@dataclass(frozen=True)
class Batch:
    """What a step learns from: rows_B of the pictures, and a CPU generator for everything else that is random."""

    step: int
    rows_B: Tensor
    random: torch.Generator


Loss = Callable[[Batch], Tensor]
Report = Callable[[str], None]


def train_slice(
    checkpoint: Path,
    trained: Mapping[str, torch.nn.Module],
    plan: Plan,
    examples: int,
    loss: Loss,
    slice_s: float,
    report: Report,
    rates: Mapping[str, float] | None = None,
) -> bool:
    """Train for `slice_s` seconds, at least one step, from `checkpoint` if it exists; returns whether the plan is done.

    trained: modules by name; their parameters that require a gradient are trained. rates: a module's share of the
    learning rate, 1 where it is not named. Afterwards the modules hold the weights of the last step, the checkpoint
    holds those, their average (see `averaged`), the optimizer's moments and the step.
    """
    # ---- Build, and go on where the last slice ended.
    named = _parameters(trained)
    shares = {f"{module}.": (rates or {}).get(module, 1.0) for module in trained}
    groups = [
        {"params": [value for name, value in named.items() if name.startswith(prefix)], "share": share}
        for prefix, share in shares.items()
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=plan.weight_decay, fused=True)
    average = {name: value.detach().clone() for name, value in named.items()}
    done = _restore(checkpoint, named, average, optimizer) if checkpoint.exists() else 0
    if done >= plan.steps:
        return True

    # ---- The loop. `step` counts optimizer steps from 1; the clock is read only to end the slice and to say the speed.
    started, reported, first = time.monotonic(), time.monotonic(), done
    losses: list[Tensor] = []
    for module in trained.values():
        module.train()
    while done < plan.steps and (done == first or time.monotonic() - started < slice_s):
        step = done + 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, plan) * group["share"]
        rows_B = order(plan.seed, examples, (step - 1) * plan.batch_size, plan.batch_size)
        value = loss(Batch(step, rows_B, generator(plan.seed, step)))
        value.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), _MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        _average(average, named, min(plan.averaging, (1 + step) / (10 + step)))
        losses.append(value.detach())
        done = step
        if step % _REPORT_STEPS == 0:
            speed = len(losses) * plan.batch_size / (time.monotonic() - reported)
            # .item() waits for the GPU, so losses are read once for many steps.
            mean = torch.stack(losses).mean().item()
            report(f"{step * plan.batch_size:,} of {plan.pictures:,} pictures, loss {mean:.4f}, {speed:.0f} pictures/s")
            losses, reported = [], time.monotonic()
    for module in trained.values():
        module.eval()

    # ---- Leave everything that the next slice needs.
    _save(checkpoint, done, named, average, optimizer)
    return done >= plan.steps


def load_average(checkpoint: Path, trained: Mapping[str, torch.nn.Module]) -> None:
    """Put the averaged weights of a checkpoint into the modules that it was made from."""
    with safe_open(checkpoint, "pt") as file, torch.no_grad():
        for name, value in _parameters(trained).items():
            value.copy_(file.get_tensor(f"average/{name}"))


def learning_rate_at(step: int, plan: Plan) -> float:
    """Linear warm-up, then a cosine from the peak to `final_rate` of it. `step` counts from 1."""
    seen = min(step * plan.batch_size, plan.pictures)
    if seen < plan.warmup_pictures:
        return plan.learning_rate * seen / plan.warmup_pictures
    passed = (seen - plan.warmup_pictures) / max(1, plan.pictures - plan.warmup_pictures)
    return plan.learning_rate * (plan.final_rate + (1 - plan.final_rate) * 0.5 * (1 + math.cos(math.pi * passed)))


def order(seed: int, count: int, position: int, batch_size: int) -> Tensor:
    """Rows_B that the batch at `position` (in pictures, from 0) holds: every epoch is a permutation of all."""
    places = [divmod(place, count) for place in range(position, position + batch_size)]
    return torch.stack([_epoch(seed, count, epoch)[index] for epoch, index in places])


def generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that depends on nothing but (seed, step), so that it is the same on every device."""
    # Hashed, because torch's CPU generator takes only the low 32 bits of what it is given.
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


@lru_cache(maxsize=2)
def _epoch(seed: int, count: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=generator(seed, -1 - epoch))


def _parameters(trained: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    return {
        f"{module}.{name}": value
        for module in trained
        for name, value in trained[module].named_parameters()
        if value.requires_grad
    }


@torch.no_grad()
def _average(average: dict[str, Tensor], named: dict[str, torch.nn.Parameter], decay: float) -> None:
    torch._foreach_lerp_(list(average.values()), [value.detach() for value in named.values()], 1 - decay)


def _save(
    checkpoint: Path,
    step: int,
    named: dict[str, torch.nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    tensors = {f"weights/{name}": value.detach() for name, value in named.items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    tensors |= {f"{key}/{name}": optimizer.state[value][key] for name, value in named.items() for key in _MOMENTS}
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    part = checkpoint.with_suffix(".part")
    save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part, {"step": str(step)})
    part.replace(checkpoint)


@torch.no_grad()
def _restore(
    checkpoint: Path,
    named: dict[str, torch.nn.Parameter],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    with safe_open(checkpoint, "pt") as file:
        for name, value in named.items():
            value.copy_(file.get_tensor(f"weights/{name}"))
            average[name].copy_(file.get_tensor(f"average/{name}"))
            # copy_ keeps the parameter's memory format, in which the moments must lie too.
            optimizer.state[value] = {
                key: torch.empty_like(value).copy_(moment) if moment.shape == value.shape else moment.to(value.device)
                for key in _MOMENTS
                for moment in (file.get_tensor(f"{key}/{name}"),)
            }
        return int(file.metadata()["step"])
