"""SDXL: what is known without loading one. Imports no torch."""

from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    KohyaPlace,
)
from base_models.traits.presets import computed, dreambooth
from base_models.traits.sgm_names import sgm_name
from base_models.traits.unet import CLIP_MARKS, SCHEDULERS, TARGETS, prediction_type, sizes

# 6.76 TFLOP a forward pass at 1024 pixels, 2.1 times that with the backward pass, 10.5 for decoding a picture. The
# example accumulates its batch of four from single pictures.
_PRESET = dreambooth(
    GenerationDefaults(steps=30, guidance_scale=5.0, scheduler="euler"),
    computed(seconds_before=60.0, seconds_per_example=0.036, seconds_per_image=1.05, seconds_after=20.0),
    batch_size=4,
)


def _architecture(configs: Configs) -> Architecture:
    # The width of what both text encoders say: CLIP ViT-L and OpenCLIP ViT-bigG.
    is_published = configs.of("unet").get("cross_attention_dim") == 2048
    name, version = ("stable-diffusion-xl-v1-base", "sdxl_base_v1-0") if is_published else ("", "")
    return Architecture(name, version, prediction_type(configs))


TRAITS = FamilyTraits(
    pipeline="StableDiffusionXLPipeline",
    tag="stable-diffusion-xl",
    adaptable=("unet", "text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    longest_prompt=lambda longest: longest - CLIP_MARKS,
    guidance=lambda configs: "classifier_free",
    schedulers=SCHEDULERS,
    targets=TARGETS,
    sizes=sizes,
    architecture=_architecture,
    kohya_prefixes={"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
    preset=lambda configs: _PRESET,
    kohya_place=lambda layer: KohyaPlace(sgm_name(layer)),
    # As sd-scripts has it (library/sai_model_spec.py).
    kohya_implementation="https://github.com/Stability-AI/generative-models",
    without={"add_watermarker": False},
)
