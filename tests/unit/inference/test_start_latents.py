"""Starting from a picture, on the real bundled base model: our equations and our engine against diffusers' pipelines.

Shapes: B batch, C channels, H/W height and width.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image
from torch import Tensor

from inference_service.denoising.start_latents import mask_of_latents, noised, outside_kept
from inference_service.diffusers_engine import _SCHEDULERS, DiffusersEngine, denoise, encode
from inference_service.engine import Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest
from inference_service.start_pictures import Start
from tests.unit.inference.picture_bytes import picture
from tests.unit.inference.quick_requests import quick_request

SEEDS = (3, 4)
SCHEDULERS = ["ddim", "euler", "dpm_solver_multistep"]
# Strength and whether there is a mask. 7 steps, because 1000 / 7 leaves DDIM with uneven timesteps.
KINDS = {"image": (0.6, False), "image-1": (1.0, False), "mask": (0.75, True), "mask-1": (1.0, True)}


def _start(strength: float, masked: bool) -> Start:
    mask_HW = np.zeros((64, 64), np.float32)
    # Its edges lie inside cells of the latents.
    mask_HW[5:47, 9:64] = 1
    return Start(np.asarray(picture()), mask_HW if masked else None, strength, None, "", "")


def _request(scheduler: str, kind: str) -> GenerationRequest:
    return quick_request(*SEEDS, steps=7, negative_prompt="blue", scheduler=scheduler, start=_start(*KINDS[kind]))


def _by_diffusers(pipeline: Any, request: GenerationRequest) -> Tensor:
    """Final latents of diffusers' own pipelines, which are given the picture itself."""
    start = request.start
    assert start is not None
    images = len(request.tasks)
    told: dict[str, Any] = {
        "prompt": [request.prompts[0].text] * images,
        "negative_prompt": [request.negative_prompt] * images,
        "image": Image.fromarray(start.picture_HWC),
        "strength": start.strength,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "generator": [torch.Generator().manual_seed(task.seed) for task in request.tasks],
        "output_type": "latent",
    }
    if start.mask_HW is None:
        kind = StableDiffusionImg2ImgPipeline
        told["image"] = [told["image"]] * images
    else:
        kind = StableDiffusionInpaintPipeline
        told |= {"mask_image": Image.fromarray((start.mask_HW * 255).astype(np.uint8)), "width": 64, "height": 64}
    parts = {**pipeline.components, "scheduler": _scheduler(pipeline, request)}
    drawing = kind(**parts, requires_safety_checker=False)
    drawing.set_progress_bar_config(disable=True)
    latents_BCHW: Tensor = drawing(**told).images
    return latents_BCHW


def _scheduler(pipeline: Any, request: GenerationRequest) -> Any:
    return _SCHEDULERS[request.scheduler].from_config(pipeline.scheduler.config)


def _scales(scheduler: Any, name: str) -> list[tuple[float, float]]:
    """Signal and noise where each step begins, and after the last."""
    if name == "ddim":
        squares = [float(scheduler.alphas_cumprod[step]) for step in scheduler.timesteps]
        return [(square**0.5, (1 - square) ** 0.5) for square in squares] + [(1.0, 0.0)]
    sigmas = [float(sigma) for sigma in scheduler.sigmas[:-1]]
    if name == "euler":
        return [(1.0, sigma) for sigma in sigmas] + [(1.0, 0.0)]
    return [(1 / (1 + sigma**2) ** 0.5, sigma / (1 + sigma**2) ** 0.5) for sigma in sigmas] + [(1.0, 0.0)]


@torch.no_grad()
def _by_equations(pipeline: Any, request: GenerationRequest) -> Tensor:
    """The same from the functions of `start_latents`, with diffusers' text encoder, network and single steps."""
    start = request.start
    assert start is not None
    images, scheduler = len(request.tasks), _scheduler(pipeline, request)
    scheduler.set_timesteps(request.steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(request.first_step)
    scales = _scales(scheduler, request.scheduler)
    prompts_BTD, negatives_BTD = pipeline.encode_prompt(
        request.prompts[0].text, "cpu", images, True, request.negative_prompt
    )
    picture_BCHW = encode(pipeline, start).repeat(images, 1, 1, 1)
    shape_1CHW = (1, *picture_BCHW.shape[1:])
    noise_BCHW = torch.cat(
        [torch.randn(shape_1CHW, generator=torch.Generator().manual_seed(task.seed)) for task in request.tasks]
    )
    mask_B1HW = torch.ones((images, 1, *picture_BCHW.shape[2:]))
    if start.mask_HW is not None:
        mask_B1HW = mask_of_latents(torch.tensor(start.mask_HW), *picture_BCHW.shape[2:]).repeat(images, 1, 1, 1)

    def rows(place: int) -> tuple[Tensor, Tensor]:
        return torch.full((images,), scales[place][0]), torch.full((images,), scales[place][1])

    latents_BCHW = noised(picture_BCHW, noise_BCHW, *rows(request.first_step))
    if start.mask_HW is not None and start.strength == 1:
        pure = torch.zeros(images), torch.full((images,), float(scheduler.init_noise_sigma))
        latents_BCHW = noised(picture_BCHW, noise_BCHW, *pure)
    for place in range(request.first_step, request.steps):
        timestep = scheduler.timesteps[place]
        doubled = scheduler.scale_model_input(torch.cat([latents_BCHW] * 2), timestep)
        said = pipeline.unet(doubled, timestep, torch.cat([negatives_BTD, prompts_BTD])).sample
        without, with_prompt = said.chunk(2)
        guided = without + request.guidance_scale * (with_prompt - without)
        latents_BCHW = scheduler.step(guided, timestep, latents_BCHW).prev_sample
        latents_BCHW = outside_kept(latents_BCHW, picture_BCHW, noise_BCHW, mask_B1HW, *rows(place + 1))
    return latents_BCHW


def _assert_equal_latents(found: Tensor, wanted: Tensor) -> None:
    difference = (found - wanted).abs()
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_engine_and_equations_give_what_diffusers_gives(plain_pipeline: Any, scheduler: str, kind: str) -> None:
    request = _request(scheduler, kind)
    wanted = _by_diffusers(plain_pipeline, request)
    _assert_equal_latents(_by_equations(plain_pipeline, request), wanted)
    own = plain_pipeline.scheduler
    try:
        plain_pipeline.scheduler = _scheduler(plain_pipeline, request)
        _assert_equal_latents(denoise(plain_pipeline, request, request.tasks, lambda completed: None), wanted)
    finally:
        plain_pipeline.scheduler = own
    assert (wanted[0] - wanted[1]).abs().mean() > 0.01


def test_a_cell_of_the_latents_is_drawn_anew_where_its_upper_left_pixel_is_white() -> None:
    mask_HW = torch.zeros(8, 8)
    mask_HW[0, 0] = mask_HW[3, 3] = mask_HW[4:, 4] = 1
    assert mask_of_latents(mask_HW, 2, 2).tolist() == [[[1.0, 0.0], [0.0, 1.0]]]


def test_a_row_without_a_mask_shares_a_batch_with_one_that_has_one() -> None:
    latents, kept, noise = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1, 8, 8)
    mask[1] = 0
    scales = torch.tensor([0.6, 1.0]), torch.tensor([0.8, 0.0])
    found = outside_kept(latents, kept, noise, mask, *scales)
    assert torch.equal(found[0], latents[0])
    assert torch.equal(found[1], kept[1])


def _generate(engine: DiffusersEngine, request: GenerationRequest) -> Sequence[Progress | Picture]:
    async def collect() -> list[Progress | Picture]:
        return [result async for result in engine.generate(request, ())]

    return asyncio.run(collect())


def test_the_engine_counts_the_steps_that_it_runs(engine: DiffusersEngine) -> None:
    results = _generate(engine, _request("ddim", "image"))
    told = [(result.completed_steps, result.total_steps) for result in results if isinstance(result, Progress)]
    assert told == [(step, 4) for step in range(5)]


def test_inpainting_keeps_what_is_black_and_draws_what_is_white(engine: DiffusersEngine) -> None:
    """Held against the picture after a round trip through the autoencoder, beside which nothing can be kept better."""
    sent = np.asarray(
        next(r for r in _generate(engine, quick_request(3, steps=10)) if isinstance(r, Picture)).pixels_HWC
    )
    top_HW = np.zeros((64, 64), np.float32)
    top_HW[:28] = 1
    request = quick_request(4, steps=10, start=Start(sent, top_HW, 1.0, None, "", ""))
    (drawn,) = [result.pixels_HWC for result in _generate(engine, request) if isinstance(result, Picture)]
    difference_HW = np.abs(drawn.astype(int) - sent.astype(int)).mean(-1)
    # The decoder looks a few cells round about, so rows near the edge are neither.
    assert difference_HW[44:].mean() < 8
    assert difference_HW[:20].mean() > 3 * difference_HW[44:].mean()


def test_images_leave_their_picture_the_further_the_more_strength(engine: DiffusersEngine) -> None:
    (sent,) = [r.pixels_HWC for r in _generate(engine, quick_request(3, steps=10)) if isinstance(r, Picture)]
    distances = []
    for strength in (0.1, 0.5, 0.9):
        request = quick_request(4, steps=10, start=Start(sent, None, strength, None, "", ""))
        (drawn,) = [result.pixels_HWC for result in _generate(engine, request) if isinstance(result, Picture)]
        distances.append(np.abs(drawn.astype(int) - sent.astype(int)).mean())
    assert distances == sorted(distances)
    assert distances[2] > 2 * distances[0]
