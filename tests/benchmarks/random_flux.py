"""FLUX.1 dev with weights from a dice, at its full size.

Its one rule: the full size is written part by part in bfloat16, as it was published, and never exists in float32; on a
GPU where there is one. All parts together take 34 GB of disk.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel, T5Config, T5EncoderModel

from tests.benchmarks.random_base_model import clip_text, clip_tokenizer
from tests.families.synthetic_tokenizers import t5_tokenizer

_T5_TOKENS = 512


def write_flux(folder: Path) -> None:
    """Write a diffusers folder shaped as FLUX.1 dev: 11.9 thousand million parameters and a T5 of 4.8 more."""
    t5 = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        parts = {
            "transformer": FluxTransformer2DModel(guidance_embeds=True),
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                latent_channels=16,
                scaling_factor=0.3611,
                shift_factor=0.1159,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            "text_encoder": CLIPTextModel(clip_text(768, 12, 12, words=49408)),
            "text_encoder_2": T5EncoderModel(t5),
        }
    _write(folder, parts)


def _write(folder: Path, parts: Mapping[str, Any]) -> None:
    """parts: on the meta device, each of which is made and written before the next."""
    torch.manual_seed(0)
    # That of FLUX.1 dev.
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    others = {"scheduler": scheduler, "tokenizer": clip_tokenizer(), "tokenizer_2": t5_tokenizer(_T5_TOKENS)}
    FluxPipeline(**parts, **others).save_config(folder)
    for name, other in others.items():
        other.save_pretrained(folder / name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, part in parts.items():
        # Not diffusers' own `to`, which warns of what has no bearing here.
        torch.nn.Module.to(part, torch.bfloat16).to_empty(device=device)
        if isinstance(part, T5EncoderModel):
            part.tie_weights()
        _fill(part)
        part.save_pretrained(folder / name)
        torch.nn.Module.to(part, "meta")


@torch.no_grad()
def _fill(module: torch.nn.Module) -> None:
    """Numbers of a size that keeps what flows through about as large as it was, as trained weights do."""
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
