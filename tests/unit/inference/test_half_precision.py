"""The engine on a base model in bfloat16, as it runs on a GPU: the same character, to the eye."""

from typing import Any

import numpy as np
import torch

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.pipelines import adaptable_modules
from inference_service.denoising.step_engine import StepEngine
from tests.random_adapter import ALL, TEXT_ATTENTION, random_adapter
from tests.unit.inference.engine_calls import applied, generated, pictures_of
from tests.unit.inference.quick_requests import quick_request


def test_pictures_in_bfloat16_are_those_in_float32_but_for_rounding(
    toon: BaseModelEntry, engine: StepEngine, plain_pipeline: Any
) -> None:
    base = load_base_model(toon, torch.device("cpu"), torch.bfloat16)
    half = StepEngine(toon, base, batch_size=4, slot_rank=4, slot_bytes=0)
    targets = {"unet": ALL, "text_encoder": TEXT_ATTENTION}
    body = random_adapter(adaptable_modules(plain_pipeline), targets, seed=2, rank=2)
    try:
        assert half.base.denoiser.dtype == torch.bfloat16
        for worn in ([], [body]):
            request = quick_request(3, 4, steps=6)
            exact = pictures_of(generated(engine, request, [applied(engine, body) for body in worn]))
            found = pictures_of(generated(half, request, [applied(half, body) for body in worn]))
            for seed in (3, 4):
                likeness = np.corrcoef(found[seed].ravel(), exact[seed].ravel())[0, 1]
                assert likeness > 0.98
    finally:
        half.close()
