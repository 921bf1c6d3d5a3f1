"""A small random copy of Stable Diffusion's safety checker, saved as its published folder is; it refuses one picture.

Importing this imports diffusers.
"""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from numpy.typing import NDArray
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

# As CompVis/stable-diffusion-safety-checker has it, in the form of its time, but for the sizes.
PREPARATION = {
    "crop_size": 32,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 32,
}


def save_safety_checker(folder: Path, refused: NDArray[np.uint8], *allowed: NDArray[np.uint8]) -> Path:
    """One whose first concept is what `refused` shows; its threshold lies half way to the nearest of `allowed`."""
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=sizes, vision_config=vision, projection_dim=16))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARATION))
    pictures = CLIPImageProcessorPil.from_pretrained(folder)([refused, *allowed], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        first_D, *others = normalize(checker.visual_projection(checker.vision_model(pictures)[1]))
        # Concepts that nothing resembles, but for one.
        checker.concept_embeds[:] = checker.special_care_embeds[:] = -first_D
        checker.concept_embeds[0] = first_D
        checker.concept_embeds_weights[0] = (1 + max(first_D @ other_D for other_D in others)) / 2
    checker.save_pretrained(folder)
    return folder
