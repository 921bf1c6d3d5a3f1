"""Qwen-Image, small and random."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from base_models.family import LatentShape
from inference_service.generation import GenerationRequest
from tests.families.family_case import FlowCase
from tests.families.synthetic_tokenizers import qwen_tokenizer

ATTENTION = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
TEXT_SIDE = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"]
ROUND_ATTENTION = ["img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"]
# Of the pipeline's template: with them it has as many tokens before the prompt as the pipeline takes away again, 34.
TEMPLATE_WORDS = (
    *("assistant", "system", "texture", "relationships", "shape", "background", "detailing", "quantity", "Describe"),
    *("spatial", "objects", "image", "color", "text", "size", "the", "and", "by"),
)
_FACTOR = 8
_MEAN, _DEVIATION = [-0.5, 0.2, 0.1, 0.4], [1.5, 0.8, 2.0, 1.2]


def write_tiny_qwen_image(folder: Path) -> None:
    """Write a small Qwen-Image, with a synthetic vocabulary."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(131072, TEMPLATE_WORDS)
    pipeline = QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(4, 6, 6),
        ),
        vae=AutoencoderKLQwenImage(base_dim=8, z_dim=4, num_res_blocks=1, latents_mean=_MEAN, latents_std=_DEVIATION),
        text_encoder=Qwen2_5_VLForConditionalGeneration(_text(len(tokenizer))),
        tokenizer=tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
        ),
    )
    pipeline.save_pretrained(folder)


def _text(words: int) -> Qwen2_5_VLConfig:
    """The part that reads, and one that sees, which nobody asks."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": words,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "bos_token_id": None,
            "eos_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [0],
        },
    )


class QwenImageCase(FlowCase):
    """See FamilyCase."""

    name = "qwen-image"
    adapted: ClassVar = {"transformer": [*ATTENTION, *TEXT_SIDE, *ROUND_ATTENTION]}
    read_by_diffusers = ("diffusers", "kohya")
    from_picture = "QwenImageImg2ImgPipeline"

    def write(self, folder: Path) -> None:
        write_tiny_qwen_image(folder)

    def options(self, request: GenerationRequest) -> dict[str, Any]:
        negative = {"negative_prompt": [request.negative_prompt] * len(request.tasks)}
        # The pipeline reads less of a prompt than its transformer can be shown, unless it is told to.
        told = {"true_cfg_scale": request.guidance_scale, "max_sequence_length": 1024}
        return told | (negative if request.guidance_scale > 1 else {})

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        return pipeline.encode_prompt(list(prompts))

    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        posterior = pipeline.vae.encode(pixels_BCHW[:, :, None]).latent_dist
        mean, deviation = (torch.tensor(values).view(1, -1, 1, 1) for values in (_MEAN, _DEVIATION))
        latents_BCHW: Tensor = (posterior.mean[:, :, 0] - mean) / deviation
        return latents_BCHW

    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        # From 0.5 at 256 patches of 16 x 16 pixels to 0.9 at 8192, as a power of e.
        return math.exp(0.5 + (pixels / 256 - 256) * (0.9 - 0.5) / (8192 - 256))

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        prompt_BTD, mask_BT = told
        batch, channels, height, width = noisy_BCHW.shape
        return {
            "hidden_states": pipeline._pack_latents(noisy_BCHW, batch, channels, height, width),
            "timestep": timesteps_B / 1000,
            "encoder_hidden_states": prompt_BTD,
            "encoder_hidden_states_mask": mask_BT,
            "img_shapes": [[(1, height // 2, width // 2)]] * batch,
        }

    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        return self.latents(pipeline, output.sample, shape)

    def latents(self, pipeline: Any, images: Tensor, shape: LatentShape) -> Tensor:
        _, height, width = shape
        unpacked: Tensor = pipeline._unpack_latents(images, height * _FACTOR, width * _FACTOR, _FACTOR)
        return unpacked[:, :, 0]
