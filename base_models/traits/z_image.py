"""Z-Image and Z-Image-Turbo: what is known without loading one. Imports no torch.

Its one rule: the two differ in their scheduler's shift, 6 and 3, and in no other of their files.
"""

from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    Preset,
)
from base_models.traits.presets import computed, dreambooth
from base_models.traits.transformer import SCHEDULERS, sizes
from base_models.traits.z_image_names import z_image_place

# Of the refiners of noise and of text too. Not the embedders: they see the tokens of all rows as one row, in which
# images cannot wear different adapters.
_ATTENTION = ["attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"]
_ROUND_ATTENTION = ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
# As many tokens as the pipeline asks of Qwen3; its chat template takes eight.
_LONGEST, _TEMPLATE = 512, 8
_TURBO_SHIFT = 3.0


def _preset(configs: Configs) -> Preset:
    is_turbo = configs.of("scheduler").get("shift", _TURBO_SHIFT) <= _TURBO_SHIFT
    return dreambooth(
        # As their authors recommend; what they call guidance 4 is 5 here, and what they call 0 is 1.
        GenerationDefaults(steps=8 if is_turbo else 50, guidance_scale=1.0 if is_turbo else 5.0, scheduler="euler"),
        # 57 TFLOP a forward pass at 1024 pixels, 2.9 times that with a backward pass that computes twice.
        computed(
            seconds_before=90.0,
            seconds_per_example=0.42,
            seconds_per_image=1.3 if is_turbo else 14.5,
            seconds_after=60.0,
        ),
    )


def _architecture(configs: Configs) -> Architecture:
    transformer = configs.of("transformer")
    is_published = (transformer.get("n_layers"), transformer.get("dim")) == (30, 3840)
    # As musubi-tuner writes them.
    return Architecture("Z-Image" if is_published else "", "z_image" if is_published else "", None)


TRAITS = FamilyTraits(
    pipeline="ZImagePipeline",
    tag="z-image",
    adaptable=("transformer",),
    tokenizers=("tokenizer",),
    longest_prompt=lambda longest: min(longest, _LONGEST) - _TEMPLATE,
    guidance=lambda configs: "classifier_free",
    schedulers=SCHEDULERS,
    targets={
        "attention": _ATTENTION,
        "attention_and_convolution": _ATTENTION,
        "all": [*_ATTENTION, *_ROUND_ATTENTION],
    },
    sizes=sizes,
    architecture=_architecture,
    kohya_prefixes={"transformer": "lora_unet"},
    preset=_preset,
    kohya_place=z_image_place,
    # That of musubi-tuner has queries, keys and values apart.
    kohya_module=None,
    kohya_readers="ComfyUI",
    training_weights="bfloat16",
)
