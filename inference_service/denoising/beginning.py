"""How images begin: from noise or from a picture, and what they are told.

Its one rule: what an image begins with is a function of its request and its seed.

Shapes: C channels, H/W height and width of latents.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from base_models.family import BaseModel, Conditioning, told_scale
from inference_service.denoising.rows import Job, Kept, Row
from inference_service.denoising.start_latents import mask_of_latents, noised, pixels_of
from inference_service.denoising.trajectories import Trajectory, trajectory
from inference_service.generation import GenerationRequest
from inference_service.start_pictures import Start


@torch.inference_mode()
def begin(base: BaseModel, job: Job, prompts: Sequence[Conditioning], negative: Conditioning | None) -> list[Row]:
    """A row for every image of a request. negative: of the negative prompt; None: without guidance."""
    request = job.request
    shape = base.latent_shape(request.width, request.height)
    schedule = base.schedule(shape, request.steps)
    path = trajectory(request.scheduler, base.scheduler_config, schedule, request.first_step)
    picture_CHW = None if request.start is None else _picture(base, request.start)
    mask_1HW = _mask(base, request, shape)
    rows = []
    for task in request.tasks:
        # One generator an image, on the CPU: its noise depends on neither its neighbours nor the device.
        noise_CHW = torch.randn((1, *shape), generator=torch.Generator().manual_seed(task.seed))[0].to(base.device)
        kept = None if picture_CHW is None or mask_1HW is None else Kept(picture_CHW, noise_CHW, mask_1HW)
        latents_CHW = _first_latents(path, request, picture_CHW, noise_CHW)
        told = told_scale(prompts[task.prompt_index], request.guidance_scale)
        rows.append(Row(job, task, path, told, negative, latents_CHW, kept))
    return rows


def _first_latents(
    path: Trajectory, request: GenerationRequest, picture_CHW: Tensor | None, noise_CHW: Tensor
) -> Tensor:
    # Where all of a masked part is drawn anew, diffusers begins at noise alone.
    is_all_new = request.start is not None and request.start.mask_HW is not None and request.first_step == 0
    if picture_CHW is None or is_all_new:
        return path.start_scale * noise_CHW
    signal, noise = noise_CHW.new_tensor([path.signal[0]]), noise_CHW.new_tensor([path.noise_scale[0]])
    return noised(picture_CHW[None], noise_CHW[None], signal, noise)[0]


def _picture(base: BaseModel, start: Start) -> Tensor:
    return base.encode_images(pixels_of(torch.tensor(start.picture_HWC)))[0].float()


def _mask(base: BaseModel, request: GenerationRequest, shape: tuple[int, int, int]) -> Tensor | None:
    if request.start is None or request.start.mask_HW is None:
        return None
    return mask_of_latents(torch.tensor(request.start.mask_HW), *shape[1:]).to(base.device)
