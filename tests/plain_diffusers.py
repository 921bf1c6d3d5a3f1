"""What plain diffusers makes of a request: slow and obviously right, so that the engine is tested by it.

Shapes: B batch, C channels, H/W height and width.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import safetensors.torch
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from base_models.adapters.worn_adapters import put_on, take_off, wear
from base_models.pipelines import adaptable_modules
from base_models.traits.family_traits import SchedulerName
from inference_service.generation import GenerationRequest

SCHEDULERS: Mapping[SchedulerName, Any] = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm_solver_multistep": DPMSolverMultistepScheduler,
}

Pipeline = Any
"""A StableDiffusionPipeline, whose parts are set at run time, out of the sight of type checkers."""


def denoise(pipeline: Pipeline, request: GenerationRequest) -> Tensor:
    """Final latents_BCHW of a request's images, with its scheduler and whatever adapters the pipeline wears."""
    pipeline, tasks = copy.copy(pipeline), request.tasks
    pipeline.scheduler = SCHEDULERS[request.scheduler].from_config(pipeline.scheduler.config)
    latents_BCHW: Tensor = pipeline(
        prompt=[request.prompts[task.prompt_index].text for task in tasks],
        negative_prompt=[request.negative_prompt] * len(tasks),
        generator=[torch.Generator().manual_seed(task.seed) for task in tasks],
        guidance_scale=request.guidance_scale,
        num_inference_steps=request.steps,
        width=request.width,
        height=request.height,
        output_type="latent",
    ).images
    return latents_BCHW


@contextmanager
def wearing(pipeline: Pipeline, worn: Sequence[tuple[bytes, float]]) -> Iterator[None]:
    """The pipeline's modules with these adapter files, each with its weight."""
    modules = adaptable_modules(pipeline)
    try:
        for index, (body, _) in enumerate(worn):
            put_on(modules, safetensors.torch.load(body), f"adapter-{index}")
        wear(modules, {f"adapter-{index}": weight for index, (_, weight) in enumerate(worn)})
        yield
    finally:
        take_off(modules)
