"""Schedulers as tables: what one denoising step does to a row, in seven numbers.

Its one rule: every scheduler is written as the same update, so that rows of different schedulers share a batch. With x
the latents in the scheduler's own space and m the network's raw prediction, a step is

    m = network(input_scale * x, timestep)
    clean = clean_from_x * x + clean_from_m * m
    x = next_from_x * x + next_from_clean * clean + next_from_last * (the step before's clean)

Numbers are computed in float64 from diffusers' own schedulers, which choose timesteps and noise levels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from base_models.traits.family_traits import SchedulerName

_FLOW = "FlowMatchEulerDiscreteScheduler"


@dataclass(frozen=True)
class Step:
    """One step's numbers; see the module."""

    timestep: float
    input_scale: float
    clean_from_x: float
    clean_from_m: float
    next_from_x: float
    next_from_clean: float
    next_from_last: float


@dataclass(frozen=True)
class Trajectory:
    """The steps of one row, and how a picture and noise make the latents that a step begins with."""

    steps: tuple[Step, ...]
    signal: tuple[float, ...]
    """Where each step begins, and after the last: latents are `signal * picture + noise_scale * noise` there."""
    noise_scale: tuple[float, ...]
    start_scale: float
    """What pure noise is multiplied by to begin with the first step."""


Schedule = Mapping[str, Any]
"""What `set_timesteps` is given; see BaseModel.schedule."""


def trajectory(name: SchedulerName, config: Mapping[str, Any], schedule: Schedule, first_step: int = 0) -> Trajectory:
    """All steps of a schedule from `first_step` on. config: of the base model's own scheduler."""
    build = _flow_euler if config.get("_class_name") == _FLOW else _BUILDERS[name]
    return build(config, schedule, first_step)


def _ddim(config: Mapping[str, Any], schedule: Schedule, first_step: int) -> Trajectory:
    """DDIM without added noise (Song et al. 2020, equation 12 with sigma = 0)."""
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(**schedule)
    timesteps = [int(timestep) for timestep in scheduler.timesteps[first_step:]]
    stride = scheduler.config.num_train_timesteps // len(scheduler.timesteps)
    alphas = [float(scheduler.alphas_cumprod[timestep]) for timestep in timesteps]
    afterwards = [
        float(scheduler.alphas_cumprod[timestep - stride] if timestep >= stride else scheduler.final_alpha_cumprod)
        for timestep in timesteps
    ]
    steps = []
    for timestep, now, after in zip(timesteps, alphas, afterwards, strict=True):
        signal, noise = math.sqrt(now), math.sqrt(1 - now)
        clean_from_x, clean_from_m = _clean(scheduler.config.prediction_type, signal, noise)
        # The noise in x is (x - signal * clean) / noise.
        kept = math.sqrt(1 - after) / noise
        steps.append(Step(timestep, 1.0, clean_from_x, clean_from_m, kept, math.sqrt(after) - kept * signal, 0.0))
    return Trajectory(
        tuple(steps),
        signal=(*(math.sqrt(alpha) for alpha in alphas), 1.0),
        noise_scale=(*(math.sqrt(1 - alpha) for alpha in alphas), 0.0),
        start_scale=float(scheduler.init_noise_sigma),
    )


def _euler(config: Mapping[str, Any], schedule: Schedule, first_step: int) -> Trajectory:
    """Euler's method without churn (Karras et al. 2022, algorithm 2), x = picture + sigma * noise."""
    scheduler = EulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(**schedule)
    sigmas = [float(sigma) for sigma in scheduler.sigmas[first_step:]]
    steps = []
    for timestep, sigma, after in zip(scheduler.timesteps[first_step:], sigmas, sigmas[1:], strict=False):
        scale = 1 / math.sqrt(sigma**2 + 1)
        # The network sees scale * x, which has a variance of one: there `_clean` holds.
        clean_from_input, clean_from_m = _clean(scheduler.config.prediction_type, scale, sigma * scale)
        steps.append(
            Step(float(timestep), scale, clean_from_input * scale, clean_from_m, after / sigma, 1 - after / sigma, 0.0)
        )
    return Trajectory(
        tuple(steps),
        signal=(1.0,) * len(sigmas),
        noise_scale=tuple(sigmas),
        start_scale=float(scheduler.init_noise_sigma),
    )


def _flow_euler(config: Mapping[str, Any], schedule: Schedule, first_step: int) -> Trajectory:
    """Euler's method for a rectified flow (Esser et al. 2024, section 2), x = (1 - sigma) picture + sigma * noise.

    The network says v = noise - picture, so the picture is x - sigma * v, and x + (after - sigma) * v lies between it
    and x.
    """
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
    scheduler.set_timesteps(**schedule)
    sigmas = [float(sigma) for sigma in scheduler.sigmas[first_step:]]
    steps = [
        Step(float(timestep), 1.0, 1.0, -sigma, after / sigma, 1 - after / sigma, 0.0)
        for timestep, sigma, after in zip(scheduler.timesteps[first_step:], sigmas, sigmas[1:], strict=False)
    ]
    return Trajectory(
        tuple(steps), signal=tuple(1 - sigma for sigma in sigmas), noise_scale=tuple(sigmas), start_scale=1.0
    )


def _dpm_solver_multistep(config: Mapping[str, Any], schedule: Schedule, first_step: int) -> Trajectory:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), its first and last step of first order."""
    scheduler = DPMSolverMultistepScheduler.from_config(config)
    scheduler.set_timesteps(**schedule)
    sigmas = [float(sigma) for sigma in scheduler.sigmas[first_step:]]
    signals = [1 / math.sqrt(sigma**2 + 1) for sigma in sigmas]
    noises = [sigma * signal for sigma, signal in zip(sigmas, signals, strict=True)]
    steps = []
    for place, timestep in enumerate(scheduler.timesteps[first_step:]):
        signal, noise, after = signals[place], noises[place], place + 1
        clean_from_x, clean_from_m = _clean(scheduler.config.prediction_type, signal, noise)
        # lambda = log(signal / noise) = -log(sigma); h is its growth over this step, infinite over the last.
        shrunk = sigmas[after] / sigmas[place]
        from_clean, from_last = signals[after] * (1 - shrunk), 0.0
        if 0 < place < len(sigmas) - 2:
            ratio = math.log(sigmas[place - 1] / sigmas[place]) / math.log(sigmas[place] / sigmas[after])
            from_last = -from_clean / (2 * ratio)
        steps.append(
            Step(
                float(timestep),
                1.0,
                clean_from_x,
                clean_from_m,
                noises[after] / noise,
                from_clean - from_last,
                from_last,
            )
        )
    return Trajectory(tuple(steps), tuple(signals), tuple(noises), float(scheduler.init_noise_sigma))


def _clean(prediction: str, signal: float, noise: float) -> tuple[float, float]:
    """The picture in x = signal * picture + noise * eps (with signal^2 + noise^2 = 1), as factors of x and of m.

    For m = eps, and for m = v = signal * eps - noise * picture (Salimans and Ho 2022, appendix D).
    """
    if prediction == "v_prediction":
        return signal, -noise
    return 1 / signal, -noise / signal


_BUILDERS: dict[SchedulerName, Callable[[Mapping[str, Any], Schedule, int], Trajectory]] = {
    "ddim": _ddim,
    "euler": _euler,
    "dpm_solver_multistep": _dpm_solver_multistep,
}
