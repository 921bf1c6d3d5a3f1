"""The configurations of published models with a transformer, without their weights.

Its one rule: each figure has its source beside it, and "as known" where it was written down without one. None was read
from the published files themselves, which are not at hand: where two independent sources quote them, they agreed.
Schedulers are those of the tests of families; memory does not depend on them.
"""

from pathlib import Path
from typing import Any

from tests.benchmarks.config_folders import Part, autoencoder_config, clip_config, filling_tokenizer, write_configs
from tests.families.qwen_image import TEMPLATE_WORDS
from tests.families.synthetic_tokenizers import qwen_tokenizer

_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_CLIP_TOKENS, _T5_TOKENS, _QWEN_TOKENS = 77, 512, 131072
# Of FLUX.1's and Stable Diffusion 3's autoencoders, as known.
_BARE = {"use_quant_conv": False, "use_post_quant_conv": False}
# T5 1.1 XXL's encoder (google/t5-v1_1-xxl), as known.
_T5_XXL = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
# Qwen3 4B, which FLUX.2 klein 4B and Z-Image share: its card; quoted by musubi-tuner and other loaders of either model.
_QWEN3_4B = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "tie_word_embeddings": True,
}


def write_flux_1_dev(folder: Path) -> None:
    """Write FLUX.1 dev: 11.9 thousand million parameters in the transformer."""
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
    autoencoder = autoencoder_config(16, sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159, **_BARE)
    parts: dict[str, Part] = {
        "transformer": ("diffusers", "FluxTransformer2DModel", transformer),
        "vae": ("diffusers", "AutoencoderKL", autoencoder),
        "text_encoder": ("transformers", "CLIPTextModel", clip_config(768, 12, 12)),
        "text_encoder_2": ("transformers", "T5EncoderModel", _T5_XXL),
        "scheduler": ("diffusers", _SCHEDULER, {"use_dynamic_shifting": True, "shift": 3.0}),
    }
    tokenizers = {"tokenizer": filling_tokenizer(_CLIP_TOKENS), "tokenizer_2": filling_tokenizer(_T5_TOKENS)}
    write_configs(folder, "FluxPipeline", parts, tokenizers)


def write_stable_diffusion_35_medium(folder: Path) -> None:
    """Write Stable Diffusion 3.5 Medium: 2.2 thousand million parameters in the transformer."""
    # Depth 24, dual attention in blocks 0 to 12, 384 places a side: quoted by MosaicML's and Tenstorrent's loaders,
    # and diffusers' own comment at `dual_attention_layers`. Widths are 64 times the depth, as known.
    transformer = {
        "sample_size": 128,
        "num_layers": 24,
        "attention_head_dim": 64,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    }
    autoencoder = autoencoder_config(16, sample_size=1024, scaling_factor=1.5305, shift_factor=0.0609, **_BARE)
    clip = "CLIPTextModelWithProjection"
    parts: dict[str, Part] = {
        "transformer": ("diffusers", "SD3Transformer2DModel", transformer),
        "vae": ("diffusers", "AutoencoderKL", autoencoder),
        "text_encoder": ("transformers", clip, clip_config(768, 12, 12)),
        "text_encoder_2": ("transformers", clip, clip_config(1280, 32, 20, hidden_act="gelu")),
        "text_encoder_3": ("transformers", "T5EncoderModel", _T5_XXL),
        "scheduler": ("diffusers", _SCHEDULER, {"shift": 3.0}),
    }
    clips = {name: filling_tokenizer(_CLIP_TOKENS) for name in ("tokenizer", "tokenizer_2")}
    write_configs(folder, "StableDiffusion3Pipeline", parts, {**clips, "tokenizer_3": filling_tokenizer(_T5_TOKENS)})


def write_flux_2_klein_base_4b(folder: Path) -> None:
    """Write FLUX.2 klein base 4B: 3.9 thousand million parameters in the transformer."""
    # diffusers' `convert_flux2_to_diffusers.py` ("klein-4b"), and `Klein4BParams` of the authors' code. What is not
    # here, and the autoencoder, are the defaults of their classes there.
    transformer = {
        "in_channels": 128,
        "num_layers": 5,
        "num_single_layers": 20,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 7680,
        "guidance_embeds": False,
    }
    parts: dict[str, Part] = {
        "transformer": ("diffusers", "Flux2Transformer2DModel", transformer),
        "vae": ("diffusers", "AutoencoderKLFlux2", {}),
        "text_encoder": ("transformers", "Qwen3ForCausalLM", _QWEN3_4B),
        "scheduler": ("diffusers", _SCHEDULER, {"use_dynamic_shifting": True, "shift": 3.0}),
    }
    write_configs(folder, "Flux2KleinPipeline", parts, {"tokenizer": qwen_tokenizer(_QWEN_TOKENS)})


def write_z_image(folder: Path) -> None:
    """Write Z-Image: 6.2 thousand million parameters in the transformer."""
    # The transformer is the default of its class but for how far places are known. That, and that the autoencoder is
    # FLUX.1's, was not found in code of its authors, only in that of others who quote the published files.
    autoencoder = autoencoder_config(16, sample_size=1024, scaling_factor=0.3611, shift_factor=0.1159, **_BARE)
    parts: dict[str, Part] = {
        "transformer": ("diffusers", "ZImageTransformer2DModel", {"axes_lens": (1536, 512, 512)}),
        "vae": ("diffusers", "AutoencoderKL", autoencoder),
        "text_encoder": ("transformers", "Qwen3Model", _QWEN3_4B),
        "scheduler": ("diffusers", _SCHEDULER, {"shift": 6.0}),
    }
    write_configs(folder, "ZImagePipeline", parts, {"tokenizer": qwen_tokenizer(_QWEN_TOKENS)})


def write_qwen_image(folder: Path) -> None:
    """Write Qwen-Image: 20.4 thousand million parameters in the transformer."""
    # Transformer and autoencoder are the defaults of their classes; exo and others quote the same figures. Qwen2.5-VL
    # 7B is as musubi-tuner has it.
    text: dict[str, Any] = {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584}
    reader = {"text_config": text, "vision_config": vision}
    scheduler = {"use_dynamic_shifting": True, "max_shift": 0.9, "max_image_seq_len": 8192, "shift_terminal": 0.02}
    parts: dict[str, Part] = {
        "transformer": ("diffusers", "QwenImageTransformer2DModel", {}),
        "vae": ("diffusers", "AutoencoderKLQwenImage", {}),
        "text_encoder": ("transformers", "Qwen2_5_VLForConditionalGeneration", reader),
        "scheduler": ("diffusers", _SCHEDULER, scheduler),
    }
    write_configs(folder, "QwenImagePipeline", parts, {"tokenizer": qwen_tokenizer(_QWEN_TOKENS, TEMPLATE_WORDS)})
