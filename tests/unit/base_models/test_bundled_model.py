"""The bundled base model is a plain Stable Diffusion pipeline: diffusers alone loads it and draws with it."""

import warnings

import torch
from diffusers import StableDiffusionPipeline

from base_models.catalog import BUNDLED

MAX_BYTES = 30_000_000


def test_diffusers_loads_it_and_draws_without_being_told_anything() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = StableDiffusionPipeline.from_pretrained(BUNDLED["toon-64"], local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    prompts = [f"a picture of a micah character, {colour} background" for colour in ("red", "blue")]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    red, blue = pipeline(
        prompts, num_inference_steps=8, guidance_scale=3.0, generator=generators, output_type="np"
    ).images
    assert red.shape == (64, 64, 3)
    corner = (slice(0, 4), slice(0, 4))
    assert red[corner].mean((0, 1)).argmax() == 0
    assert blue[corner].mean((0, 1)).argmax() == 2


def test_its_weights_are_at_most_thirty_megabytes() -> None:
    assert sum(path.stat().st_size for path in BUNDLED["toon-64"].rglob("*.safetensors")) <= MAX_BYTES
