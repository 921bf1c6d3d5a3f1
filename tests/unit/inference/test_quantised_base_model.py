"""A base model with quantised weights: the engine draws what plain diffusers draws, with the same adapter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionXLPipeline

from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.layer_shapes import read_layer_shapes
from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from base_models.weights.layer_weights import full_weight
from inference_service.denoising.step_engine import StepEngine
from tests.quantised_base_model import KINDS, write_quantised
from tests.random_adapter import ATTENTION, random_adapter
from tests.unit.inference.engine_calls import applied, far_apart, generated, pictures_of
from tests.unit.inference.quick_requests import TEXT, quick_request

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=[KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.slow)])
def quantised(tiny_sdxl: BaseModelEntry, tmp_path_factory: pytest.TempPathFactory, request: Any) -> BaseModelEntry:
    folder: Path = tmp_path_factory.mktemp(request.param) / "model"
    return write_quantised(tiny_sdxl, folder, request.param)


def test_it_draws_what_diffusers_draws_without_and_with_an_adapter(quantised: BaseModelEntry) -> None:
    plain: Any = StableDiffusionXLPipeline.from_pretrained(
        quantised.folder, dtype={"default": torch.bfloat16, "vae": torch.float32}, add_watermarker=False
    )
    engine = StepEngine(quantised, load_base_model(quantised, CPU), batch_size=2, slot_rank=4, slot_bytes=0)
    body = random_adapter({"unet": plain.unet}, {"unet": ATTENTION}, seed=1)

    def wanted() -> Any:
        latents_BCHW = plain(
            TEXT,
            negative_prompt="blue",
            num_inference_steps=4,
            guidance_scale=3.0,
            width=64,
            height=64,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).images
        with torch.no_grad():
            pixels_BCHW = plain.vae.decode(latents_BCHW.float() / plain.vae.config.scaling_factor).sample
        return (pixels_BCHW[0].permute(1, 2, 0) * 0.5 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).numpy()

    def drawn(*bodies: bytes) -> Any:
        request = quick_request(3, scheduler="euler", negative_prompt="blue")
        return pictures_of(generated(engine, request, [applied(engine, body) for body in bodies]))[3]

    try:
        untuned_HWC = wanted()
        plain.load_lora_weights(safetensors.torch.load(body))
        tuned_HWC = wanted()
        assert far_apart(untuned_HWC, tuned_HWC)
        for found_HWC, wanted_HWC in ((drawn(), untuned_HWC), (drawn(body), tuned_HWC)):
            # Both are computed in bfloat16, in another order.
            assert np.corrcoef(found_HWC.ravel(), wanted_HWC.ravel())[0, 1] > 0.99
    finally:
        engine.close()


def test_a_dora_changes_the_weights_that_the_packed_numbers_stand_for(quantised: BaseModelEntry) -> None:
    unpacked: Any = load_base_model(quantised, CPU)
    for layer in unpacked.denoiser.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight = torch.nn.Parameter(full_weight(layer).to(torch.bfloat16), requires_grad=False)
    body = random_adapter(unpacked.adaptable, {"unet": ATTENTION}, seed=2, is_dora=True)
    request, found = quick_request(3, scheduler="euler"), []
    for base in (load_base_model(quantised, CPU), unpacked):
        engine = StepEngine(quantised, base, batch_size=2, slot_rank=4, slot_bytes=0)
        try:
            found += [pictures_of(generated(engine, request, [applied(engine, body)]))[3]]
        finally:
            engine.close()
    assert np.corrcoef(found[0].ravel(), found[1].ravel())[0, 1] > 0.99


def test_adapters_are_checked_against_the_shapes_that_the_layers_have(
    quantised: BaseModelEntry, tiny_sdxl: BaseModelEntry
) -> None:
    assert read_layer_shapes(quantised) == read_layer_shapes(tiny_sdxl)
    base = load_base_model(quantised, CPU)
    body = random_adapter(base.adaptable, {"unet": ATTENTION}, seed=1)
    assert read_adapter(body, base.adaptable).keys() == safetensors.torch.load(body).keys()


def test_all_but_the_autoencoder_is_held_in_bfloat16_whatever_is_asked_for(quantised: BaseModelEntry) -> None:
    base: Any = load_base_model(quantised, CPU, torch.float32)
    assert (base.denoiser.dtype, base.pipeline.text_encoder.dtype) == (torch.bfloat16, torch.bfloat16)
    assert base.pipeline.vae.dtype == torch.float32
