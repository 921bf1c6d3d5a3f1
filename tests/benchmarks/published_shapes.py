"""The configuration files of published base models, without their weights: all that their memory depends on.

Its one rule: figures are those of the models' own files; what they leave to a class's defaults is left to them here.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from base_models.catalog import BUNDLED
from tests.benchmarks import published_transformers
from tests.benchmarks.config_folders import Part, autoencoder_config, clip_config, filling_tokenizer, write_configs


def _stable_diffusion_15(folder: Path) -> None:
    unet = {
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "sample_size": 64,
        "cross_attention_dim": 768,
    }
    parts: dict[str, Part] = {
        "unet": ("diffusers", "UNet2DConditionModel", unet),
        "vae": ("diffusers", "AutoencoderKL", autoencoder_config(4, sample_size=512, scaling_factor=0.18215)),
        "text_encoder": ("transformers", "CLIPTextModel", clip_config(768, 12, 12)),
        "scheduler": ("diffusers", "DDIMScheduler", {"steps_offset": 1, "clip_sample": False}),
    }
    write_configs(folder, "StableDiffusionPipeline", parts, {"tokenizer": filling_tokenizer(77)})
    _leave_out(folder, "safety_checker", "feature_extractor")


def _sdxl(folder: Path) -> None:
    unet = {
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    parts: dict[str, Part] = {
        "unet": ("diffusers", "UNet2DConditionModel", unet),
        "vae": ("diffusers", "AutoencoderKL", autoencoder_config(4, sample_size=1024, scaling_factor=0.13025)),
        "text_encoder": ("transformers", "CLIPTextModel", clip_config(768, 12, 12)),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", clip_config(1280, 32, 20, hidden_act="gelu")),
        "scheduler": ("diffusers", "EulerDiscreteScheduler", {"steps_offset": 1}),
    }
    write_configs(
        folder,
        "StableDiffusionXLPipeline",
        parts,
        {name: filling_tokenizer(77) for name in ("tokenizer", "tokenizer_2")},
    )


def _toon_64(folder: Path) -> None:
    shutil.copytree(BUNDLED["toon-64"], folder, ignore=shutil.ignore_patterns("*.safetensors", "sets", "recipe"))


def _leave_out(folder: Path, *parts: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index |= {part: [None, None] for part in parts}
    (folder / "model_index.json").write_text(json.dumps(index))


PUBLISHED: Mapping[str, Callable[[Path], None]] = {
    "toon-64": _toon_64,
    "stable-diffusion": _stable_diffusion_15,
    "stable-diffusion-xl": _sdxl,
    "stable-diffusion-3": published_transformers.write_stable_diffusion_35_medium,
    "flux": published_transformers.write_flux_1_dev,
    "flux2": published_transformers.write_flux_2_klein_base_4b,
    "z-image": published_transformers.write_z_image,
    "qwen-image": published_transformers.write_qwen_image,
}
"""What writes the configs of the model that each family is counted on, by the family's tag."""
