"""The step engine behind its port, on the real bundled base model."""

import asyncio
from contextlib import aclosing
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from inference_service.denoising.step_engine import StepEngine
from inference_service.engine import EngineEvent, Picture, Preview
from inference_service.events import Progress
from inference_service.generation import Prompt
from tests.unit.inference.engine_calls import assert_equal_pictures, far_apart, generated, pictures_of
from tests.unit.inference.quick_requests import TEXT, quick_request


def test_every_image_comes_once_with_its_seed_and_place(engine: StepEngine) -> None:
    request = quick_request(prompts=(Prompt(TEXT, (5, 2**63 - 1)), Prompt("a character in the rain", (5, 0))))
    results = generated(engine, request)
    tasks = [result.task for result in results if isinstance(result, Picture)]
    assert [(task.index, task.prompt_index, task.seed) for task in tasks] == [
        (0, 0, 5),
        (1, 0, 2**63 - 1),
        (2, 1, 5),
        (3, 1, 0),
    ]
    assert all(result.pixels_HWC.shape == (64, 64, 3) for result in results if isinstance(result, Picture))


def test_progress_counts_every_step_of_every_image(engine: StepEngine) -> None:
    results = generated(engine, quick_request(1, 2, 3, 4))
    told = [
        (index, result.completed_steps)
        for result in results
        if isinstance(result, Progress)
        for index in result.indices
    ]
    for image in range(4):
        assert [step for index, step in told if index == image] == list(range(5))


def test_previews_look_like_the_pictures_that_they_come_before(engine: StepEngine) -> None:
    results = generated(engine, quick_request(3, 4, steps=8, preview_every=3))
    previews = [result for result in results if isinstance(result, Preview)]
    told = sorted((preview.task.seed, preview.completed_steps) for preview in previews)
    assert told == [(3, 3), (3, 6), (4, 3), (4, 6)]
    final = pictures_of(results)
    for preview in (preview for preview in previews if preview.completed_steps == 6):
        height, width = preview.pixels_HWC.shape[:2]
        seed = preview.task.seed
        own, other = (
            np.asarray(Image.fromarray(final[which]).resize((width, height), Image.Resampling.BOX))
            for which in (seed, 7 - seed)
        )
        likeness, unlikeness = (np.corrcoef(preview.pixels_HWC.ravel(), shown.ravel())[0, 1] for shown in (own, other))
        assert likeness > 0.8
        assert likeness > unlikeness


def test_an_image_does_not_depend_on_its_group(engine: StepEngine) -> None:
    together = pictures_of(generated(engine, quick_request(7, 8, 9)))
    alone = pictures_of(generated(engine, quick_request(8)))
    assert_equal_pictures(together[8], alone[8])
    assert far_apart(together[8], together[7])


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm_solver_multistep"])
def test_every_scheduler_gives_what_diffusers_gives(engine: StepEngine, plain_pipeline: Any, scheduler: str) -> None:
    classes = {
        "ddim": diffusers.DDIMScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "dpm_solver_multistep": diffusers.DPMSolverMultistepScheduler,
    }
    own = plain_pipeline.scheduler
    try:
        plain_pipeline.scheduler = classes[scheduler].from_config(own.config)
        wanted = plain_pipeline(
            TEXT,
            negative_prompt="blue",
            num_inference_steps=6,
            guidance_scale=4.0,
            width=48,
            height=64,
            generator=torch.Generator().manual_seed(3),
        ).images[0]
    finally:
        plain_pipeline.scheduler = own
    request = quick_request(
        3, scheduler=scheduler, negative_prompt="blue", steps=6, guidance_scale=4.0, width=48, height=64
    )
    assert_equal_pictures(pictures_of(generated(engine, request))[3], np.asarray(wanted))


def test_guidance_negative_prompt_and_steps_each_change_the_picture(engine: StepEngine) -> None:
    base = pictures_of(generated(engine, quick_request(3)))[3]
    for change in ({"guidance_scale": 8.0}, {"negative_prompt": "red hat"}, {"steps": 9}, {"scheduler": "euler"}):
        assert far_apart(base, pictures_of(generated(engine, quick_request(3, **change)))[3])


def test_closing_the_iteration_stops_within_a_step_and_the_next_request_runs(engine: StepEngine) -> None:
    async def scenario() -> list[EngineEvent]:
        async with aclosing(engine.generate(quick_request(1, steps=150), ())) as results:
            async for result in results:
                assert isinstance(result, Progress)
                if result.completed_steps == 2:
                    break
        # 150 steps would take longer than the patience of this test.
        async with asyncio.timeout(10):
            return [result async for result in engine.generate(quick_request(2), ())]

    assert list(pictures_of(asyncio.run(scenario()))) == [2]


def test_a_request_that_is_given_up_computes_nothing_more_and_others_go_on(engine: StepEngine) -> None:
    async def scenario() -> None:
        running = engine.generate(quick_request(1, steps=20), ())
        await anext(running)
        other = engine.generate(quick_request(2, steps=150), ())
        await anext(other)
        await other.aclose()
        rest = [result async for result in running]
        assert list(pictures_of(rest)) == [1]
        before = engine.counters.images
        assert list(pictures_of([result async for result in engine.generate(quick_request(3), ())])) == [3]
        assert engine.counters.images == before + 4

    asyncio.run(scenario())


def test_an_engine_error_reaches_its_request_only(engine: StepEngine) -> None:
    broken = quick_request(1, scheduler="unheard-of")
    with pytest.raises(KeyError):
        generated(engine, broken)
    assert list(pictures_of(generated(engine, quick_request(1)))) == [1]
