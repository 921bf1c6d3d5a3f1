"""How images begin: their noise, the way they will go, and what they are told.

Its one rule: what an image begins with is a function of its request and its seed.
"""

from collections.abc import Sequence

import torch

from base_models.family import BaseModel, Conditioning
from inference_service.denoising.rows import Job, Row
from inference_service.denoising.trajectories import trajectory


def begin(base: BaseModel, job: Job, prompts: Sequence[Conditioning], negative: Conditioning | None) -> list[Row]:
    """A row for every image of a request. negative: of the negative prompt; None: without guidance."""
    request = job.request
    path = trajectory(request.scheduler, base.scheduler_config, request.steps)
    shape = base.latent_shape(request.width, request.height)
    rows = []
    for task in request.tasks:
        # One generator an image, on the CPU: its noise depends on neither its neighbours nor the device.
        noise_CHW = torch.randn((1, *shape), generator=torch.Generator().manual_seed(task.seed))[0].to(base.device)
        rows.append(Row(job, task, path, prompts[task.prompt_index], negative, path.start_scale * noise_CHW))
    return rows
