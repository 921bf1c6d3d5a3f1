"""What a base model is in the words of other programs' file headers. Imports no torch.

Its one rule: a model is called a Stable Diffusion 1, 2 or XL only where its own files say that it has that shape.
"""

import json
from dataclasses import dataclass

from base_models.catalog import BaseModelEntry


@dataclass(frozen=True)
class Architecture:
    """ModelSpec's `architecture` and `prediction_type`, and Kohya's `ss_base_model_version`."""

    name: str
    base_model_version: str
    prediction_type: str


def read_architecture(entry: BaseModelEntry) -> Architecture:
    """Read a base model's files. One of no known shape is called by its own name."""
    unet = json.loads((entry.folder / "unet" / "config.json").read_text())
    scheduler = json.loads((entry.folder / "scheduler" / "scheduler_config.json").read_text())
    is_v = scheduler.get("prediction_type", "epsilon") == "v_prediction"
    # The width of what the text encoders say: CLIP ViT-L, OpenCLIP ViT-H, CLIP ViT-L and OpenCLIP ViT-bigG.
    match entry.pipeline, unet.get("cross_attention_dim"), is_v:
        case "StableDiffusionPipeline", 768, _:
            name, version = "stable-diffusion-v1", "sd_v1_v" if is_v else "sd_v1"
        case "StableDiffusionPipeline", 1024, False:
            name, version = "stable-diffusion-v2-512", "sd_v2"
        case "StableDiffusionPipeline", 1024, True:
            name, version = "stable-diffusion-v2-768-v", "sd_v2_v"
        case "StableDiffusionXLPipeline", 2048, _:
            name, version = "stable-diffusion-xl-v1-base", "sdxl_base_v1-0"
        case _:
            name = version = entry.name
    return Architecture(name, version, "v" if is_v else "epsilon")
