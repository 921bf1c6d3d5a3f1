"""The same picture: alone, among others with other adapters, and from plain diffusers, for every scheduler.

Equality is the design's: final float32 latents within 1e-3 at most and 1e-4 on average.
"""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from base_models.catalog import BaseModelEntry, SchedulerName
from base_models.stable_diffusion import StableDiffusion, adaptable_modules
from base_models.worn_adapters import put_on, take_off, wear
from inference_service.diffusers_engine import denoise
from inference_service.generation import Prompt
from tests.random_adapter import ALL, ATTENTION, TEXT_ATTENTION, random_adapter
from tests.unit.inference.quick_requests import quick_request
from tests.unit.inference.step_rows import SLOT_RANK, StepRows

STEPS = 20
NEIGHBOURS = 7
SEED = 3
Worn = Sequence[tuple[bytes, float]]


@pytest.fixture(scope="module")
def steps(toon: BaseModelEntry) -> Iterator[StepRows]:
    rows = StepRows(StableDiffusion(toon, torch.device("cpu")))
    yield rows
    rows.close()


def _assert_equal_latents(found: Tensor, wanted: Tensor) -> None:
    difference = (found - wanted).abs()
    assert difference.max() <= 1e-3
    assert difference.mean() <= 1e-4


def _request(seed: int, scheduler: SchedulerName = "ddim", **changes: Any) -> Any:
    size = {"width": 32, "height": 32}
    return quick_request(seed, **{"scheduler": scheduler, "steps": STEPS, "negative_prompt": "blue"} | size | changes)


def _by_diffusers(pipeline: Any, request: Any, worn: Worn, modules: Any) -> Tensor:
    """What the plain pipeline makes of the request while it wears these adapters."""
    from inference_service.diffusers_engine import _SCHEDULERS

    own = pipeline.scheduler
    try:
        for index, (body, _) in enumerate(worn):
            put_on(modules, torch_tensors(body), f"adapter-{index}")
        wear(modules, {f"adapter-{index}": weight for index, (_, weight) in enumerate(worn)})
        pipeline.scheduler = _SCHEDULERS[request.scheduler].from_config(own.config)
        return denoise(pipeline, request, request.tasks, lambda completed: None)[0]
    finally:
        pipeline.scheduler = own
        take_off(modules)
