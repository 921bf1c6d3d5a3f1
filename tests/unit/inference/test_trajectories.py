"""Schedulers as tables, held against diffusers' own, step by step."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from base_models.traits.family_traits import SchedulerName
from inference_service.denoising.trajectories import Trajectory, trajectory

CLASSES: dict[SchedulerName, Any] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm_solver_multistep": DPMSolverMultistepScheduler,
}
# Stable Diffusion 1.5's and 2.1's, as published, and the bundled model's way of spacing.
CONFIGS: dict[str, dict[str, Any]] = {
    "epsilon": {"prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1},
    "velocity": {"prediction_type": "v_prediction", "timestep_spacing": "leading", "steps_offset": 1},
    "trailing": {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "steps_offset": 1},
}
COMMON = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
}


def _network(x: Tensor, timestep: float) -> Tensor:
    """Anything that depends on all of its input and on the time."""
    return torch.tanh(1.3 * x + timestep / 1000).roll(1, -1)


def _walk(path: Trajectory, x: Tensor) -> Tensor:
    last = torch.zeros_like(x)
    for step in path.steps:
        clean = step.clean_from_x * x + step.clean_from_m * _network(step.input_scale * x, step.timestep)
        x = step.next_from_x * x + step.next_from_clean * clean + step.next_from_last * last
        last = clean
    return x


def _walk_with_diffusers(scheduler: Any, x: Tensor, first: int = 0) -> Tensor:
    if not isinstance(scheduler, DDIMScheduler):
        # DDIM keeps no place of its own.
        scheduler.set_begin_index(first)
    for timestep in scheduler.timesteps[first:]:
        prediction = _network(scheduler.scale_model_input(x, timestep), float(timestep))
        x = scheduler.step(prediction, timestep, x).prev_sample
    return x


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 20, 150])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_whole_way_ends_where_diffusers_ends(name: SchedulerName, config: str, steps: int) -> None:
    scheduler = CLASSES[name].from_config(COMMON | CONFIGS[config])
    scheduler.set_timesteps(steps)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(steps), dtype=torch.float64)
    path = trajectory(name, COMMON | CONFIGS[config], {"num_inference_steps": steps})
    assert path.start_scale == pytest.approx(float(scheduler.init_noise_sigma))
    wanted = _walk_with_diffusers(scheduler, path.start_scale * noise)
    assert len(path.steps) == steps
    # diffusers computes its numbers in float32.
    assert (_walk(path, path.start_scale * noise) - wanted).abs().max() <= 1e-4


@pytest.mark.parametrize("first", [1, 7, 19])
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_way_from_the_middle_ends_where_diffusers_ends(name: SchedulerName, config: str, first: int) -> None:
    scheduler = CLASSES[name].from_config(COMMON | CONFIGS[config])
    scheduler.set_timesteps(20)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(first), dtype=torch.float64)
    path = trajectory(name, COMMON | CONFIGS[config], {"num_inference_steps": 20}, first)
    assert len(path.steps) == 20 - first
    assert (_walk(path, x) - _walk_with_diffusers(scheduler, x, first)).abs().max() <= 1e-4


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_picture_is_noised_for_every_step_as_by_diffusers(name: SchedulerName, config: str) -> None:
    scheduler = CLASSES[name].from_config(COMMON | CONFIGS[config])
    scheduler.set_timesteps(20)
    picture, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    path = trajectory(name, COMMON | CONFIGS[config], {"num_inference_steps": 20})
    for place, timestep in enumerate(scheduler.timesteps):
        wanted = scheduler.add_noise(picture, noise, timestep[None])
        found = path.signal[place] * picture + path.noise_scale[place] * noise
        assert (found - wanted).abs().max() <= 1e-4
    assert (path.signal[-1], path.noise_scale[-1]) == (1.0, 0.0)
