"""What a Stable Diffusion is in the words of other programs' file headers. Imports no torch.

Its one rule: a model is called a Stable Diffusion 1 or 2 only where its own files say that it has that shape.
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Architecture:
    """ModelSpec's `architecture` and `prediction_type`, and Kohya's `ss_base_model_version`."""

    name: str
    base_model_version: str
    prediction_type: str


def read_architecture(base_model: str, folder: Path) -> Architecture:
    """Read a diffusers folder of the Stable Diffusion family. One of no known shape is called by its own name."""
    unet = json.loads((folder / "unet" / "config.json").read_text())
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    is_v = scheduler.get("prediction_type", "epsilon") == "v_prediction"
    # The width of the text encoder's output: CLIP ViT-L and OpenCLIP ViT-H.
    match unet.get("cross_attention_dim"), is_v:
        case 768, _:
            name, version = "stable-diffusion-v1", "sd_v1_v" if is_v else "sd_v1"
        case 1024, False:
            name, version = "stable-diffusion-v2-512", "sd_v2"
        case 1024, True:
            name, version = "stable-diffusion-v2-768-v", "sd_v2_v"
        case _:
            name = version = base_model
    return Architecture(name, version, "v" if is_v else "epsilon")
