"""Base models with the shapes of published ones and weights from a dice: speed and memory do not ask what they mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from base_models.catalog import BUNDLED

_TOKENS = 77
# The words of the bundled model do: speed depends on how many tokens there are, and all prompts are padded.
_WORDS, _BEGIN, _END = 858, 856, 857
_BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def write_stable_diffusion_15(folder: Path) -> None:
    """Write a diffusers folder shaped as Stable Diffusion 1.5 (860 million parameters in its UNet), for 512 pixels."""
    unet = {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8}
    _write_stable_diffusion(folder, unet, 64, _vae((128, 256, 512, 512), 32), clip_text(768, 12, 12, words=49408))


def write_tiny(folder: Path, predicts_v: bool = False) -> None:
    """Write the same, small enough for any machine: for 64 pixels. predicts_v: as Stable Diffusion 2.1 has it."""
    unet = {
        "block_out_channels": (8, 8, 16, 16),
        "attention_head_dim": 2,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "use_linear_projection": predicts_v,
    }
    prediction = "v_prediction" if predicts_v else "epsilon"
    _write_stable_diffusion(folder, unet, 8, _vae((8, 8, 8, 8), 4), clip_text(16, 1, 2), prediction)


def write_sdxl(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a diffusers folder shaped as SDXL 1.0 (2.6 thousand million parameters in its UNet), for 1024 pixels."""
    unet = {
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "addition_time_embed_dim": 256,
    }
    first = clip_text(768, 12, 12, words=49408)
    second = clip_text(1280, 32, 20, words=49408, hidden_act="gelu")
    with _weights_of(dtype):
        _write_sdxl(folder, unet, 128, _vae((128, 256, 512, 512), 32), first, second)


def write_medium_sdxl(folder: Path, dtype: torch.dtype) -> None:
    """Write the same with 90 million parameters, for 256 pixels."""
    unet = {
        "block_out_channels": (64, 128, 384),
        "attention_head_dim": (1, 2, 6),
        "transformer_layers_per_block": (1, 1, 8),
        "addition_time_embed_dim": 32,
    }
    text, text_2 = clip_text(256, 2, 4), clip_text(512, 4, 8, hidden_act="gelu")
    with _weights_of(dtype):
        _write_sdxl(folder, unet, 32, _vae((32, 32, 64, 64), 32), text, text_2)


def write_tiny_sdxl(folder: Path) -> None:
    """Write the same, small enough for any machine: for 64 pixels."""
    unet = {
        "block_out_channels": (8, 16, 32),
        "attention_head_dim": (1, 2, 4),
        "transformer_layers_per_block": (1, 1, 2),
        "addition_time_embed_dim": 8,
        "norm_num_groups": 4,
    }
    _write_sdxl(folder, unet, 8, _vae((8, 8, 8, 8), 4), clip_text(16, 3, 2), clip_text(24, 2, 2, hidden_act="gelu"))


@contextmanager
def _weights_of(dtype: torch.dtype) -> Iterator[None]:
    """Made of this dtype, rather than made of another and cast: there may be memory for one of the two."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def clip_text(
    width: int, layers: int, heads: int, words: int = _WORDS, hidden_act: str = "quick_gelu"
) -> CLIPTextConfig:
    """Of a CLIP text encoder; with the bundled model's words, unless there are more."""
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=_TOKENS,
        projection_dim=width,
        hidden_act=hidden_act,
        bos_token_id=_BEGIN,
        eos_token_id=_END,
    )


def _vae(channels: tuple[int, ...], groups: int) -> dict[str, Any]:
    return {
        "block_out_channels": channels,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": groups,
    }


def clip_tokenizer() -> CLIPTokenizer:
    """The bundled model's, for prompts of 77 tokens."""
    return CLIPTokenizer.from_pretrained(BUNDLED["toon-64"] / "tokenizer", model_max_length=_TOKENS)


def _write_stable_diffusion(
    folder: Path,
    unet: dict[str, Any],
    latents_size: int,
    vae: dict[str, Any],
    text: CLIPTextConfig,
    prediction: str = "epsilon",
) -> None:
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**vae, sample_size=latents_size * 8, scaling_factor=0.18215),
        text_encoder=CLIPTextModel(text),
        tokenizer=clip_tokenizer(),
        unet=UNet2DConditionModel(**unet, sample_size=latents_size, cross_attention_dim=text.hidden_size),
        scheduler=DDIMScheduler(**_BETAS, clip_sample=False, prediction_type=prediction),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


def _write_sdxl(
    folder: Path,
    unet: dict[str, Any],
    latents_size: int,
    vae: dict[str, Any],
    first: CLIPTextConfig,
    second: CLIPTextConfig,
) -> None:
    torch.manual_seed(0)
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL(**vae, sample_size=latents_size * 8, scaling_factor=0.13025, force_upcast=True),
        text_encoder=CLIPTextModel(first),
        text_encoder_2=CLIPTextModelWithProjection(second),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=UNet2DConditionModel(
            **unet,
            sample_size=latents_size,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=first.hidden_size + second.hidden_size,
            use_linear_projection=True,
            addition_embed_type="text_time",
            projection_class_embeddings_input_dim=second.projection_dim + 6 * unet["addition_time_embed_dim"],
        ),
        scheduler=EulerDiscreteScheduler(**_BETAS),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
