"""FLUX.2 klein, distilled and base: what is known without loading one. Imports no torch.

Its one rule: the distilled ones are not guided, and their `model_index.json` says so; nothing else tells them apart.
"""

from base_models.traits.bfl_names import flux2_place
from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    GuidanceName,
    Preset,
)
from base_models.traits.presets import computed, dreambooth
from base_models.traits.transformer import SCHEDULERS, sizes

# diffusers' DreamBooth-LoRA example for klein. Both kinds of blocks have an `attn.to_out`, but only that of the single
# ones is a layer, so those are counted: the largest klein has 24.
_ATTENTION = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.to_qkv_mlp_proj"),
    *(f"single_transformer_blocks.{block}.attn.to_out" for block in range(24)),
]
_TEXT_ATTENTION = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"]
_ROUND_ATTENTION = ["linear_in", "linear_out"]
_TOKENS = 512
# Of `<|im_start|>user\n` three, `<|im_end|>\n` two, `<|im_start|>assistant\n` three, `<think>\n\n</think>\n\n` four.
_TEMPLATE_TOKENS = 12
# By how many blocks it has, those with two streams first.
_VARIANTS = {(5, 20): "4b", (8, 24): "9b"}


def _preset(configs: Configs) -> Preset:
    is_distilled = _guidance(configs) == "none"
    return dreambooth(
        GenerationDefaults(
            steps=4 if is_distilled else 50, guidance_scale=1.0 if is_distilled else 4.0, scheduler="euler"
        ),
        # Of the 4B: 34.8 TFLOP a forward pass at 1024 pixels, 2.9 times that with a backward pass that computes twice.
        computed(
            seconds_before=60.0,
            seconds_per_example=0.26,
            seconds_per_image=0.5 if is_distilled else 9.0,
            seconds_after=30.0,
        ),
    )


def _guidance(configs: Configs) -> GuidanceName:
    return "none" if configs.index().get("is_distilled") else "classifier_free"


def _architecture(configs: Configs) -> Architecture:
    transformer = configs.of("transformer")
    variant = _VARIANTS.get((transformer.get("num_layers"), transformer.get("num_single_layers")))
    if variant is None:
        return Architecture("", "", None)
    # As Kohya's musubi-tuner has it: one name for the distilled and the base model.
    return Architecture(f"Flux.2-klein-{variant}", f"flux_2_klein_{variant}", None)


TRAITS = FamilyTraits(
    pipeline="Flux2KleinPipeline",
    tag="flux2",
    adaptable=("transformer",),
    tokenizers=("tokenizer",),
    longest_prompt=lambda longest: min(longest, _TOKENS) - _TEMPLATE_TOKENS,
    guidance=_guidance,
    schedulers=SCHEDULERS,
    targets={
        "attention": _ATTENTION,
        "attention_and_convolution": _ATTENTION,
        "all": [*_ATTENTION, *_TEXT_ATTENTION, *_ROUND_ATTENTION],
    },
    sizes=sizes,
    architecture=_architecture,
    kohya_prefixes={"transformer": "lora_unet"},
    preset=_preset,
    kohya_place=flux2_place,
    kohya_module="networks.lora_flux_2",
    kohya_readers="Kohya's musubi-tuner and ComfyUI",
    training_weights="bfloat16",
)
