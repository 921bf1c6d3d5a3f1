"""Starting from a picture, on the real bundled base model: our equations and our engine against diffusers' pipelines.

Shapes: B batch, C channels, H/W height and width.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image
from torch import Tensor

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.traits.family_traits import SchedulerName
from inference_service.denoising.start_latents import mask_of_latents, outside_kept
from inference_service.denoising.step_engine import StepEngine
from inference_service.engine import Picture
from inference_service.events import Progress
from inference_service.generation import GenerationRequest
from inference_service.start_pictures import Start
from tests.plain_diffusers import SCHEDULERS
from tests.unit.inference.picture_bytes import picture
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import StepRows

SEEDS = (3, 4)
# Strength and whether there is a mask. 7 steps, because 1000 / 7 leaves DDIM with uneven timesteps.
KINDS = {"image": (0.6, False), "image-1": (1.0, False), "mask": (0.75, True), "mask-1": (1.0, True)}


def _start(strength: float, masked: bool) -> Start:
    mask_HW = np.zeros((64, 64), np.float32)
    # Its edges lie inside cells of the latents.
    mask_HW[5:47, 9:64] = 1
    return Start(np.asarray(picture()), mask_HW if masked else None, strength, None, "", "")


def _request(scheduler: SchedulerName, kind: str) -> GenerationRequest:
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
    scheduler = SCHEDULERS[request.scheduler].from_config(pipeline.scheduler.config)
    parts = {**pipeline.components, "scheduler": scheduler}
    drawing = kind(**parts, requires_safety_checker=False)
    drawing.set_progress_bar_config(disable=True)
    latents_BCHW: Tensor = drawing(**told).images
    return latents_BCHW


def _assert_equal_latents(found: Tensor, wanted: Tensor) -> None:
    difference = (found - wanted).abs()
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


@pytest.fixture(scope="module")
def steps(toon: BaseModelEntry) -> Iterator[StepRows]:
    rows = StepRows(load_base_model(toon, torch.device("cpu")))
    yield rows
    rows.close()


@pytest.mark.parametrize(
    "scheduler", ["ddim", *(pytest.param(name, marks=pytest.mark.slow) for name in SCHEDULERS if name != "ddim")]
)
def test_the_engine_gives_what_diffusers_gives(steps: StepRows, plain_pipeline: Any, scheduler: SchedulerName) -> None:
    """Every kind of start in one batch, as they come over the wire."""
    jobs = {kind: steps.add(_request(scheduler, kind)) for kind in KINDS}
    found = steps.run()
    for job in jobs.values():
        wanted = _by_diffusers(plain_pipeline, job.request)
        for place, seed in enumerate(SEEDS):
            _assert_equal_latents(found[job, seed], wanted[place])
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


def _generate(engine: StepEngine, request: GenerationRequest) -> Sequence[Progress | Picture]:
    async def collect() -> list[Progress | Picture]:
        return [result async for result in engine.generate(request, ())]

    return asyncio.run(collect())


def test_the_engine_counts_the_steps_that_it_runs(engine: StepEngine) -> None:
    results = _generate(engine, _request("ddim", "image"))
    told = [(result.completed_steps, result.total_steps) for result in results if isinstance(result, Progress)]
    assert told == [(step, 4) for step in range(5)]


def test_inpainting_keeps_what_is_black_and_draws_what_is_white(engine: StepEngine) -> None:
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


def test_images_leave_their_picture_the_further_the_more_strength(engine: StepEngine) -> None:
    (sent,) = [r.pixels_HWC for r in _generate(engine, quick_request(3, steps=10)) if isinstance(r, Picture)]
    distances = []
    for strength in (0.1, 0.5, 0.9):
        request = quick_request(4, steps=10, start=Start(sent, None, strength, None, "", ""))
        (drawn,) = [result.pixels_HWC for result in _generate(engine, request) if isinstance(result, Picture)]
        distances.append(np.abs(drawn.astype(int) - sent.astype(int)).mean())
    assert distances == sorted(distances)
    assert distances[2] > 2 * distances[0]
