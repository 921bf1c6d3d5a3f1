"""Previews without the autoencoder, held against what the autoencoder makes of the same latents."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate, pixel_unshuffle

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


class LinearPatches:
    """All that a preview asks of a base model: of each patch of 16 x 16 pixels 128 mixtures, its colours in all."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        details_CN = torch.randn(128, 3 * 16**2, generator=generator)
        colours_CN = torch.randn(128, 3, generator=generator).repeat_interleave(16**2, 1)
        self._mixtures_CN = (details_CN + colours_CN) / 16

    def encode_images(self, pixels_BCHW: Tensor) -> Tensor:
        return torch.einsum("cn,bnhw->bchw", self._mixtures_CN, pixel_unshuffle(pixels_BCHW, 16))


def test_a_preview_of_many_channels_and_few_places_has_the_colours_of_detailed_pictures() -> None:
    # As FLUX.2 has them. Measured: 0.3 of 255 levels apart on average, where the picture itself deviates by 34.
    base_model: Any = LinearPatches()
    preview = LatentPreview.fit(base_model)
    generator = torch.Generator().manual_seed(1)
    colours_BCHW = interpolate(torch.rand(2, 3, 4, 4, generator=generator) * 2 - 1, (256, 256), mode="bilinear")
    pixels_BCHW = 0.7 * colours_BCHW + 0.3 * (torch.rand(2, 3, 256, 256, generator=generator) * 2 - 1)
    for pixels_CHW in pixels_BCHW:
        (latents_CHW,) = base_model.encode_images(pixels_CHW[None])
        small_CHW = adaptive_avg_pool2d(pixels_CHW, 16)
        drawn_HWC = preview.draw(latents_CHW)[2::4, 2::4]
        wanted_HWC = (interpolate(small_CHW[None], (64, 64), mode="bilinear")[0].movedim(0, -1)[2::4, 2::4] + 1) * 127.5
        assert np.abs(drawn_HWC - wanted_HWC.numpy()).mean() < 2
