"""The configuration files of published base models, without their weights: all that their memory depends on.

Its one rule: figures are those of the models' own files; what they leave to a class's defaults is left to them here.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from base_models.catalog import BUNDLED

_LATENTS_CHANNELS = (128, 256, 512, 512)
# How many tokens there are counts, and not which: every prompt is filled up.
_TOKENIZER = BUNDLED["toon-64"] / "tokenizer"

Part = tuple[str, str, Mapping[str, Any]]
"""A library, a class of its, and what its config says."""


def write_configs(folder: Path, pipeline: str, parts: Mapping[str, Part], tokenizers: Mapping[str, int]) -> None:
    """Write a diffusers folder without weights. tokenizers: the most tokens of each."""
    index: dict[str, Any] = {"_class_name": pipeline}
    for name, (library, class_name, config) in parts.items():
        index[name] = [library, class_name]
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        (folder / name).mkdir(parents=True)
        (folder / name / file).write_text(json.dumps({"_class_name": class_name, **config}))
    for name, longest in tokenizers.items():
        index[name] = ["transformers", "CLIPTokenizer"]
        shutil.copytree(_TOKENIZER, folder / name)
        settings = folder / name / "tokenizer_config.json"
        settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": longest}))
    (folder / "model_index.json").write_text(json.dumps(index))


def _stable_diffusion_15(folder: Path) -> None:
    unet = {
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "sample_size": 64,
        "cross_attention_dim": 768,
    }
    parts: dict[str, Part] = {
        "unet": ("diffusers", "UNet2DConditionModel", unet),
        "vae": ("diffusers", "AutoencoderKL", _autoencoder(4, sample_size=512, scaling_factor=0.18215)),
        "text_encoder": ("transformers", "CLIPTextModel", _clip(768, 12, 12)),
        "scheduler": ("diffusers", "DDIMScheduler", {"steps_offset": 1, "clip_sample": False}),
    }
    write_configs(folder, "StableDiffusionPipeline", parts, {"tokenizer": 77})
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
        "vae": ("diffusers", "AutoencoderKL", _autoencoder(4, sample_size=1024, scaling_factor=0.13025)),
        "text_encoder": ("transformers", "CLIPTextModel", _clip(768, 12, 12)),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection", _clip(1280, 32, 20, hidden_act="gelu")),
        "scheduler": ("diffusers", "EulerDiscreteScheduler", {"steps_offset": 1}),
    }
    write_configs(folder, "StableDiffusionXLPipeline", parts, {"tokenizer": 77, "tokenizer_2": 77})


def _flux(folder: Path) -> None:
    transformer = {
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": True,
    }
    t5 = {
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
    }
    autoencoder = _autoencoder(16, sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159)
    bare = {"use_quant_conv": False, "use_post_quant_conv": False}
    parts: dict[str, Part] = {
        "transformer": ("diffusers", "FluxTransformer2DModel", transformer),
        "vae": ("diffusers", "AutoencoderKL", autoencoder | bare),
        "text_encoder": ("transformers", "CLIPTextModel", _clip(768, 12, 12)),
        "text_encoder_2": ("transformers", "T5EncoderModel", t5),
        "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True, "shift": 3.0}),
    }
    write_configs(folder, "FluxPipeline", parts, {"tokenizer": 77, "tokenizer_2": 512})


def _toon_64(folder: Path) -> None:
    shutil.copytree(BUNDLED["toon-64"], folder, ignore=shutil.ignore_patterns("*.safetensors", "sets", "recipe"))


def _clip(width: int, layers: int, heads: int, hidden_act: str = "quick_gelu") -> dict[str, Any]:
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "projection_dim": width,
        "hidden_act": hidden_act,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


def _autoencoder(latent_channels: int, **others: Any) -> dict[str, Any]:
    return {
        "block_out_channels": _LATENTS_CHANNELS,
        "down_block_types": ("DownEncoderBlock2D",) * len(_LATENTS_CHANNELS),
        "up_block_types": ("UpDecoderBlock2D",) * len(_LATENTS_CHANNELS),
        "layers_per_block": 2,
        "latent_channels": latent_channels,
        **others,
    }


def _leave_out(folder: Path, *parts: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index |= {part: [None, None] for part in parts}
    (folder / "model_index.json").write_text(json.dumps(index))


PUBLISHED: Mapping[str, Callable[[Path], None]] = {
    "toon-64": _toon_64,
    "stable-diffusion": _stable_diffusion_15,
    "stable-diffusion-xl": _sdxl,
    "flux": _flux,
}
"""What writes the configs of the model that each family is counted on, by the family's tag."""
