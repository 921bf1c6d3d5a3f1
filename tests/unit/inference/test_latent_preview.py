"""Previews without the autoencoder, held against what the autoencoder makes of the same latents."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from base_models.catalog import BaseModelEntry
from inference_service.denoising.latent_preview import LatentPreview

PROMPTS = [
    "a picture of a micah character, red background",
    "a picture of a toon character, happy, blue background",
    "a picture of an adventurer character, green background, close-up",
]


@pytest.fixture(scope="module")
def base_model(toon: BaseModelEntry) -> Any:
    from base_models.families.stable_diffusion import StableDiffusion

    return StableDiffusion(toon, torch.device("cpu"))


@pytest.fixture(scope="module")
def preview(base_model: Any) -> LatentPreview:
    return LatentPreview.fit(base_model)


def test_a_preview_resembles_what_the_autoencoder_decodes(base_model: Any, preview: LatentPreview) -> None:
    # Measured: correlations of 0.94 to 0.97, and 11 to 13 of 255 levels apart on average.
    pipeline = base_model.pipeline
    latents_BCHW = pipeline(
        PROMPTS,
        num_inference_steps=8,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (1, 2, 3)],
        output_type="latent",
    ).images
    with torch.no_grad():
        decoded_BCHW = adaptive_avg_pool2d(base_model.decode_latents(latents_BCHW).clamp(-1, 1), 16)
    for latents_CHW, decoded_CHW in zip(latents_BCHW, decoded_BCHW, strict=True):
        decoded_HWC = (decoded_CHW.movedim(0, -1).numpy() + 1) * 127.5
        drawn_HWC = preview.draw(latents_CHW).reshape(16, 4, 16, 4, 3).mean((1, 3))
        assert np.corrcoef(drawn_HWC.flatten(), decoded_HWC.flatten())[0, 1] > 0.9
        assert np.abs(drawn_HWC - decoded_HWC).mean() < 20


@pytest.mark.parametrize(
    ("height", "width", "drawn"), [(16, 16, (64, 64)), (8, 32, (32, 128)), (64, 128, (128, 256)), (256, 96, (256, 96))]
)
def test_a_preview_is_four_times_the_latents_and_at_most_256_pixels(
    preview: LatentPreview, height: int, width: int, drawn: tuple[int, int]
) -> None:
    pixels_HWC = preview.draw(torch.zeros(4, height, width))
    assert (pixels_HWC.shape, pixels_HWC.dtype) == ((*drawn, 3), np.uint8)


def test_latents_far_out_are_drawn_as_full_colours(preview: LatentPreview) -> None:
    # Half way through, predictions of clean latents can be anything; a wrap-around would draw noise.
    torch.manual_seed(0)
    pixels_HWC = preview.draw(torch.randn(4, 2, 2, dtype=torch.float16) * 1000)
    corners = pixels_HWC[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert set(corners.flatten().tolist()) <= {0, 255}


def test_the_same_base_model_gives_the_same_previews(base_model: Any, preview: LatentPreview) -> None:
    torch.manual_seed(1)
    latents_CHW = torch.randn(4, 16, 16)
    assert np.array_equal(LatentPreview.fit(base_model).draw(latents_CHW), preview.draw(latents_CHW))
