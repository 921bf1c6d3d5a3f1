"""Base models with the shapes of published ones and weights from a dice: speed and memory do not ask what they mean."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from base_models.catalog import BUNDLED

_TOKENS = 77


def write_stable_diffusion_15(folder: Path) -> None:
    """Write a diffusers folder shaped as Stable Diffusion 1.5 (860 million parameters in its UNet), for 512 pixels."""
    _write(
        folder,
        unet_channels=(320, 640, 1280, 1280),
        unet_layers=2,
        heads=8,
        groups=32,
        latents_size=64,
        vae_channels=(128, 256, 512, 512),
        text=CLIPTextConfig(
            vocab_size=49408,
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=_TOKENS,
            projection_dim=768,
            bos_token_id=856,
            eos_token_id=857,
        ),
    )


def write_tiny(folder: Path) -> None:
    """Write the same, small enough for any machine: for 64 pixels."""
    _write(
        folder,
        unet_channels=(8, 8, 16, 16),
        unet_layers=1,
        heads=2,
        groups=4,
        latents_size=8,
        vae_channels=(8, 8, 8, 8),
        text=CLIPTextConfig(
            vocab_size=858,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=_TOKENS,
            projection_dim=16,
            bos_token_id=856,
            eos_token_id=857,
        ),
    )


def _write(
    folder: Path,
    unet_channels: tuple[int, ...],
    unet_layers: int,
    heads: int,
    groups: int,
    latents_size: int,
    vae_channels: tuple[int, ...],
    text: CLIPTextConfig,
) -> None:
    torch.manual_seed(0)
    levels = len(vae_channels)
    # The bundled words do: speed depends on how many tokens there are, and all prompts are padded.
    tokenizer = CLIPTokenizer.from_pretrained(BUNDLED["toon-64"] / "tokenizer", model_max_length=_TOKENS)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=vae_channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=groups,
            sample_size=latents_size * 2 ** (levels - 1),
            scaling_factor=0.18215,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=latents_size,
            block_out_channels=unet_channels,
            layers_per_block=unet_layers,
            attention_head_dim=heads,
            cross_attention_dim=text.hidden_size,
            norm_num_groups=groups,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
