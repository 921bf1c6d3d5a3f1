"""SDXL: what is known without loading one. Imports no torch."""

from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    KohyaPlace,
    Preset,
    Reference,
    TrainingDefaults,
)
from base_models.traits.sgm_names import sgm_name
from base_models.traits.unet import CLIP_MARKS, SCHEDULERS, TARGETS, prediction_type, sizes

# diffusers' DreamBooth-LoRA example for SDXL, with a warm-up; its batch of four is accumulated from single pictures.
_PRESET = Preset(
    class_noun="person",
    generation=GenerationDefaults(steps=30, guidance_scale=5.0, scheduler="euler"),
    training=TrainingDefaults(
        steps=500,
        batch_size=4,
        learning_rate=1e-4,
        warmup_steps=50,
        rank=16,
        targets="attention",
        precision="bfloat16",
        caption_dropout=0.05,
        prior_images=100,
        checkpoint_every=100,
        aspect_buckets=True,
        crop="salient",
    ),
    sample_scenes=(", portrait", ", on a beach"),
    # 6.76 TFLOP a forward pass at 1024 pixels, 2.1 times that with the backward pass, 10.5 for decoding a picture.
    reference=Reference(
        hardware="an H100 at 40 % of its peak, computed from operation counts, start and end guessed, never measured",
        seconds_before=60.0,
        seconds_per_example=0.036,
        seconds_per_image=1.05,
        seconds_after=20.0,
    ),
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
