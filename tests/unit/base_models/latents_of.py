"""A picture's latents, as a plain pipeline is now and with an adapter as we put it on."""

from typing import Any

import torch
from torch import Tensor

from base_models.adapters.adapter_file import read_adapter
from base_models.adapters.worn_adapters import put_on, take_off, wear
from base_models.pipelines import adaptable_modules


def latents(pipeline: Any) -> Tensor:
    """Of one prompt and seed, two steps."""
    return pipeline(
        "a picture of sks character, happy, blue background",
        num_inference_steps=2,
        guidance_scale=1.0,
        width=64,
        height=64,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images


def latents_with(pipeline: Any, body: bytes) -> Tensor:
    """The same with an adapter file."""
    modules = adaptable_modules(pipeline)
    try:
        put_on(modules, read_adapter(body, modules), "own")
        wear(modules, {"own": 1.0})
        return latents(pipeline)
    finally:
        take_off(modules)
