"""FLUX.2 klein, distilled and base, small and random."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from base_models.family import LatentShape
from inference_service.generation import GenerationRequest
from tests.families.family_case import FlowCase
from tests.families.synthetic_tokenizers import QWEN_WORDS, qwen_tokenizer

BOTH_STREAMS = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "linear_in", "linear_out"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
]
ONE_STREAM = ["attn.to_qkv_mlp_proj", *(f"single_transformer_blocks.{block}.attn.to_out" for block in range(2))]
_EPSILON = 1e-4


def write_tiny_flux_2(folder: Path, is_distilled: bool = True) -> None:
    """Write a small FLUX.2 klein, with a synthetic vocabulary. Of its language model 27 layers are asked."""
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4, latent_channels=4, batch_norm_eps=_EPSILON
    )
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    pipeline = Flux2KleinPipeline(
        transformer=Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=1,
            joint_attention_dim=48,
            timestep_guidance_channels=16,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        ),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=QWEN_WORDS,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=28,
                num_attention_heads=1,
                num_key_value_heads=1,
                head_dim=8,
                initializer_range=0.2,
            )
        ),
        tokenizer=qwen_tokenizer(131072),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        is_distilled=is_distilled,
    )
    pipeline.save_pretrained(folder)


class Flux2KleinCase(FlowCase):
    """See FamilyCase."""

    adapted: ClassVar = {"transformer": [*BOTH_STREAMS, *ONE_STREAM]}
    negative_prompt = ""

    def __init__(self, is_distilled: bool) -> None:
        self.name = "flux-2-klein" if is_distilled else "flux-2-klein-base"
        self._is_distilled = is_distilled

    def write(self, folder: Path) -> None:
        write_tiny_flux_2(folder, self._is_distilled)

    def options(self, request: GenerationRequest) -> dict[str, Any]:
        return {"guidance_scale": request.guidance_scale}

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        return pipeline.encode_prompt(list(prompts))

    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        latents_BCHW: Tensor = pipeline._encode_vae_image(pixels_BCHW, None)
        return latents_BCHW

    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        places = pixels / 256
        # Two lines in the number of places, of 10 and of 200 steps, and a line between them.
        ten, two_hundred = 8.73809524e-05 * places + 1.89833333, 0.00016927 * places + 0.45666666
        return math.exp(two_hundred + (two_hundred - ten) * (steps - 200) / 190)

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        prompt_BTD, text_ids = told
        return {
            "hidden_states": pipeline._pack_latents(noisy_BCHW),
            "timestep": timesteps_B / 1000,
            "encoder_hidden_states": prompt_BTD,
            "txt_ids": text_ids,
            "img_ids": pipeline._prepare_latent_ids(noisy_BCHW),
        }

    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        _, height, width = shape
        places = pipeline._prepare_latent_ids(torch.empty(len(output.sample), *shape))
        unpacked: Tensor = pipeline._unpack_latents_with_ids(output.sample, places, height, width)
        return unpacked

    def latents(self, pipeline: Any, images: Tensor, shape: LatentShape) -> Tensor:
        # What it returns is what its autoencoder decodes.
        statistics = pipeline.vae.bn
        patches_BCHW: Tensor = pipeline._patchify_latents(images) - statistics.running_mean.view(-1, 1, 1)
        return patches_BCHW / (statistics.running_var + _EPSILON).sqrt().view(-1, 1, 1)
