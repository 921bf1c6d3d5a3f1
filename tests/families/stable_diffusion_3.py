"""Stable Diffusion 3 and 3.5, small and random."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

from base_models.family import LatentShape
from inference_service.generation import GenerationRequest
from tests.benchmarks.random_base_model import clip_text, clip_tokenizer
from tests.families.family_case import FlowCase
from tests.families.flux import tiny_autoencoder
from tests.families.synthetic_tokenizers import T5_WORDS, t5_tokenizer
from tests.random_adapter import ATTENTION, TEXT_ATTENTION

TEXT_SIDE = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
ROUND_ATTENTION = ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]
# Wider than both CLIPs together, as the published one is.
_T5_WIDTH = 48


@dataclass(frozen=True)
class Shape:
    """What the published ones differ in, and which schedule they have."""

    qk_norm: str | None = None
    dual_attention_layers: tuple[int, ...] = ()
    has_t5: bool = True
    is_dynamic: bool = False


SHAPES = {
    # No published one shifts by size; the pipeline knows how.
    "stable-diffusion-3-without-t5": Shape(has_t5=False, is_dynamic=True),
    "stable-diffusion-3.5-large": Shape(qk_norm="rms_norm"),
    "stable-diffusion-3.5-medium": Shape(qk_norm="rms_norm", dual_attention_layers=(0,)),
}


def write_tiny_stable_diffusion_3(folder: Path, shape: Shape = SHAPES["stable-diffusion-3.5-medium"]) -> None:
    """Write a small Stable Diffusion 3 for 64 pixels, with a synthetic T5 vocabulary or without T5."""
    torch.manual_seed(0)
    t5 = T5Config(vocab_size=T5_WORDS, d_model=_T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=_T5_WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=16 + 24,
            pos_embed_max_size=12,
            qk_norm=shape.qk_norm,
            dual_attention_layers=shape.dual_attention_layers,
        ),
        vae=tiny_autoencoder(latent_channels=4, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(clip_text(16, 2, 2)),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_text(24, 2, 2, hidden_act="gelu")),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=T5EncoderModel(t5) if shape.has_t5 else None,
        tokenizer_3=t5_tokenizer(512) if shape.has_t5 else None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=shape.is_dynamic),
    )
    pipeline.save_pretrained(folder)


class StableDiffusion3Case(FlowCase):
    """See FamilyCase."""

    adapted: ClassVar = {
        "transformer": [*ATTENTION, *TEXT_SIDE, *ROUND_ATTENTION],
        "text_encoder": TEXT_ATTENTION,
        "text_encoder_2": TEXT_ATTENTION,
    }
    from_picture = "StableDiffusion3Img2ImgPipeline"

    def __init__(self, name: str) -> None:
        self.name = name
        self._shape = SHAPES[name]
        self.without = {} if self._shape.has_t5 else {"text_encoder_3": None, "tokenizer_3": None}

    def write(self, folder: Path) -> None:
        write_tiny_stable_diffusion_3(folder, self._shape)

    def options(self, request: GenerationRequest) -> dict[str, Any]:
        negative = [request.negative_prompt] * len(request.tasks)
        return {"guidance_scale": request.guidance_scale, "negative_prompt": negative}

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        return pipeline.encode_prompt(list(prompts), None, None, do_classifier_free_guidance=False)

    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        posterior = pipeline.vae.encode(pixels_BCHW).latent_dist
        latents_BCHW: Tensor = (posterior.mean - 0.0609) * 1.5305
        return latents_BCHW

    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        if not self._shape.is_dynamic:
            return 3.0
        # From 0.5 at 256 patches of 16 x 16 pixels to 1.15 at 4096, as a power of e.
        return math.exp(0.5 + (pixels / 256 - 256) * (1.15 - 0.5) / (4096 - 256))

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        prompt_BTD, _, pooled_BD, _ = told
        return {
            "hidden_states": noisy_BCHW,
            "timestep": timesteps_B,
            "encoder_hidden_states": prompt_BTD,
            "pooled_projections": pooled_BD,
        }

    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        said_BCHW: Tensor = output.sample
        return said_BCHW
