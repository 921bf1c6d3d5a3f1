"""The step engine on a small random SDXL: two text encoders, pooled embeddings, sizes that the network is told."""

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionXLPipeline

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from inference_service.denoising.step_engine import StepEngine
from inference_service.engine import AppliedAdapter, Picture
from service_kit.names import AdapterVersionName
from tests.random_adapter import ATTENTION, TEXT_ATTENTION, random_adapter
from tests.unit.inference.quick_requests import TEXT, quick_request


@pytest.fixture(scope="module")
def engine(tiny_sdxl: BaseModelEntry) -> Iterator[StepEngine]:
    running = StepEngine(
        tiny_sdxl, load_base_model(tiny_sdxl, torch.device("cpu")), batch_size=2, slot_rank=4, slot_bytes=0
    )
    yield running
    running.close()


@pytest.fixture(scope="module")
def plain(tiny_sdxl: BaseModelEntry) -> Any:
    return StableDiffusionXLPipeline.from_pretrained(tiny_sdxl.folder, dtype=torch.float32, add_watermarker=False)


def test_it_draws_what_diffusers_draws_without_and_with_an_adapter_of_both_text_encoders(
    engine: StepEngine, plain: Any
) -> None:
    modules = {name: plain.components[name] for name in ("unet", "text_encoder", "text_encoder_2")}
    targets = {"unet": ATTENTION, "text_encoder": TEXT_ATTENTION, "text_encoder_2": TEXT_ATTENTION}
    body = random_adapter(modules, targets, seed=1)
    digest = hashlib.sha256(body).hexdigest()
    applied = AppliedAdapter(AdapterVersionName("default", "test", 1), digest, 1.0, engine.read_adapter(body))

    async def drawn(*adapters: AppliedAdapter) -> Any:
        request = quick_request(3, scheduler="euler", negative_prompt="blue", width=64, height=96)
        (found,) = [result async for result in engine.generate(request, adapters) if isinstance(result, Picture)]
        return found.pixels_HWC

    def wanted() -> Any:
        seed = torch.Generator().manual_seed(3)
        picture = plain(
            TEXT,
            negative_prompt="blue",
            num_inference_steps=4,
            guidance_scale=3.0,
            width=64,
            height=96,
            generator=seed,
        ).images[0]
        return np.asarray(picture).astype(int)

    untuned_HWC = wanted()
    plain.load_lora_weights(safetensors.torch.load(body))
    tuned_HWC = wanted()
    for found_HWC, wanted_HWC in ((asyncio.run(drawn()), untuned_HWC), (asyncio.run(drawn(applied)), tuned_HWC)):
        assert (np.abs(found_HWC - wanted_HWC) <= 1).mean() >= 0.999
    assert (np.abs(untuned_HWC - tuned_HWC) > 1).mean() > 0.1
