"""Z-Image-Turbo, small and random. The other one differs in its shift alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import Tensor
from transformers import Qwen3Config, Qwen3Model

from base_models.family import LatentShape
from inference_service.generation import GenerationRequest
from tests.families.family_case import FlowCase
from tests.families.flux import tiny_autoencoder
from tests.families.synthetic_tokenizers import QWEN_WORDS, qwen_tokenizer

ATTENTION = ["attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"]
ROUND_ATTENTION = ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]


def write_tiny_z_image(folder: Path) -> None:
    """Write a small Z-Image-Turbo, with a synthetic Qwen vocabulary."""
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 32, 32],
    )
    # Zero before it is trained: what fills up would be seen by nobody.
    for filling in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(filling)
    pipeline = ZImagePipeline(
        transformer=transformer,
        vae=tiny_autoencoder(latent_channels=4, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(
            Qwen3Config(
                vocab_size=QWEN_WORDS,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=16,
            )
        ),
        tokenizer=qwen_tokenizer(131072),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    pipeline.save_pretrained(folder)


class ZImageCase(FlowCase):
    """See FamilyCase."""

    name = "z-image-turbo"
    adapted: ClassVar = {"transformer": [*ATTENTION, *ROUND_ATTENTION]}
    read_by_diffusers = ("diffusers", "kohya")
    from_picture = "ZImageImg2ImgPipeline"

    def write(self, folder: Path) -> None:
        write_tiny_z_image(folder)

    def options(self, request: GenerationRequest) -> dict[str, Any]:
        # The pipeline is told w, of which 0 is off.
        return {
            "guidance_scale": request.guidance_scale - 1,
            "negative_prompt": [request.negative_prompt] * len(request.tasks),
        }

    def told(self, pipeline: Any, prompts: Sequence[str]) -> Any:
        told, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return told

    def encode(self, pipeline: Any, pixels_BCHW: Tensor) -> Tensor:
        posterior = pipeline.vae.encode(pixels_BCHW).latent_dist
        latents_BCHW: Tensor = (posterior.mean - 0.1159) * 0.3611
        return latents_BCHW

    def shift(self, scheduler: Mapping[str, Any], pixels: int, steps: int) -> float:
        return 3.0

    def forward(self, pipeline: Any, noisy_BCHW: Tensor, timesteps_B: Tensor, told: Any) -> Mapping[str, Any]:
        return {"x": list(noisy_BCHW.unsqueeze(2)), "t": 1 - timesteps_B / 1000, "cap_feats": told}

    def said(self, pipeline: Any, output: Any, shape: LatentShape) -> Tensor:
        return -torch.stack(output.sample)[:, :, 0]
