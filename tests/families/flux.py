"""FLUX.1, dev and schnell, small and random."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from base_models.family import LatentShape
from inference_service.generation import GenerationRequest
from tests.benchmarks.random_base_model import clip_text, clip_tokenizer
from tests.families.family_case import FlowCase
from tests.families.synthetic_tokenizers import T5_WORDS, t5_tokenizer
from tests.random_adapter import TEXT_ATTENTION

ATTENTION = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
TEXT_SIDE = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"]
ROUND_ATTENTION = ["net.0.proj", "net.2", "proj_mlp", "0.proj_out", "1.proj_out"]
_FACTOR = 8


def write_tiny_flux(folder: Path, is_dev: bool = True) -> None:
    """Write a small FLUX.1, dev or schnell, with a synthetic T5 vocabulary."""
    torch.manual_seed(0)
    pipeline = FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=16,
            guidance_embeds=is_dev,
            axes_dims_rope=(4, 6, 6),
        ),
        vae=tiny_autoencoder(latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(clip_text(16, 1, 2)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=T5_WORDS, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
        ),
        tokenizer_2=t5_tokenizer(512),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if is_dev else 1.0, use_dynamic_shifting=is_dev),
    )
    pipeline.save_pretrained(folder)


def tiny_autoencoder(**config: Any) -> AutoencoderKL:
    """As SD3 and FLUX.1 have it: a shift, and no convolution between it and the latents."""
    return AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **config,
    )


class FluxCase(FlowCase):
    """See FamilyCase."""

    adapted: ClassVar = {"transformer": [*ATTENTION, *TEXT_SIDE, *ROUND_ATTENTION], "text_encoder": TEXT_ATTENTION}
    from_picture = "FluxImg2ImgPipeline"

    def __init__(self, is_dev: bool) -> None:
        self.name = "flux-dev" if is_dev else "flux-schnell"
        self._is_dev = is_dev

    def write(self, folder: Path) -> None:
        write_tiny_flux(folder, self._is_dev)

    def options(self, request: GenerationRequest) -> dict[str, Any]:
        return {"guidance_scale": request.guidance_scale}

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        return pipeline.encode_prompt(list(prompts), None)

    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        posterior = pipeline.vae.encode(pixels_BCHW).latent_dist
        latents_BCHW: Tensor = (posterior.mean - 0.1159) * 0.3611
        return latents_BCHW

    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        if not self._is_dev:
            return 1.0
        # From 0.5 at 256 patches of 16 x 16 pixels to 1.15 at 4096, as a power of e.
        return math.exp(0.5 + (pixels / 256 - 256) * (1.15 - 0.5) / (4096 - 256))

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        prompt_BTD, pooled_BD, text_ids = told
        batch, channels, height, width = noisy_BCHW.shape
        return {
            "hidden_states": pipeline._pack_latents(noisy_BCHW, batch, channels, height, width),
            "timestep": timesteps_B / 1000,
            "guidance": torch.ones(batch) if self._is_dev else None,
            "pooled_projections": pooled_BD,
            "encoder_hidden_states": prompt_BTD,
            "txt_ids": text_ids,
            "img_ids": pipeline._prepare_latent_image_ids(batch, height // 2, width // 2, "cpu", torch.float32),
        }

    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        return self.latents(pipeline, output.sample, shape)

    def latents(self, pipeline: Any, images: Tensor, shape: LatentShape) -> Tensor:
        _, height, width = shape
        unpacked: Tensor = pipeline._unpack_latents(images, height * _FACTOR, width * _FACTOR, _FACTOR)
        return unpacked
