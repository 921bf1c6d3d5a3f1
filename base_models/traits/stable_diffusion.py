"""Stable Diffusion 1.x, 2.x and the bundled toon-64: what is known without loading one. Imports no torch.

Its one rule: a model is called a Stable Diffusion 1 or 2 only where its own files say that it has that shape.
"""

from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
)
from base_models.traits.presets import computed, dreambooth
from base_models.traits.unet import CLIP_MARKS, SCHEDULERS, TARGETS, is_v_prediction, prediction_type, sizes

# 0.8 TFLOP a forward pass, 2.1 times that with the backward pass: docs/measurements.md.
_PRESET = dreambooth(
    GenerationDefaults(steps=30, guidance_scale=7.5, scheduler="dpm_solver_multistep"),
    computed(seconds_before=20.0, seconds_per_example=0.0043, seconds_per_image=0.13, seconds_after=10.0),
    steps=800,
    batch_size=2,
)


def _architecture(configs: Configs) -> Architecture:
    is_v = is_v_prediction(configs)
    # The width of what the text encoder says: CLIP ViT-L, OpenCLIP ViT-H.
    match configs.of("unet").get("cross_attention_dim"), is_v:
        case 768, _:
            name, version = "stable-diffusion-v1", "sd_v1_v" if is_v else "sd_v1"
        case 1024, False:
            name, version = "stable-diffusion-v2-512", "sd_v2"
        case 1024, True:
            name, version = "stable-diffusion-v2-768-v", "sd_v2_v"
        case _:
            name = version = ""
    return Architecture(name, version, prediction_type(configs))


TRAITS = FamilyTraits(
    pipeline="StableDiffusionPipeline",
    tag="stable-diffusion",
    adaptable=("unet", "text_encoder"),
    tokenizers=("tokenizer",),
    longest_prompt=lambda longest: longest - CLIP_MARKS,
    guidance=lambda configs: "classifier_free",
    schedulers=SCHEDULERS,
    targets=TARGETS,
    sizes=sizes,
    architecture=_architecture,
    kohya_prefixes={"unet": "lora_unet", "text_encoder": "lora_te"},
    preset=lambda configs: _PRESET,
    without={"safety_checker": None},
)
