"""FLUX.1, dev and schnell: what is known without loading one. Imports no torch.

Its one rule: schnell is told no guidance scale, and its own files say so; nothing else tells the two apart.
"""

from base_models.traits.bfl_names import flux_place
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

_ATTENTION = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
_TEXT_ATTENTION = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"]
# Those of the single blocks by number: the whole's last layer has their name, and Kohya's scripts do not train it.
_SINGLE_BLOCKS = 38
_ROUND_ATTENTION = ["net.0.proj", "net.2", "proj_mlp", *(f"{block}.proj_out" for block in range(_SINGLE_BLOCKS))]
# As many tokens as the pipelines ask of T5, whose end mark takes one.
_LONGEST = 512 - 1


def _preset(configs: Configs) -> Preset:
    is_dev = _guidance(configs) == "embedded"
    return dreambooth(
        GenerationDefaults(steps=28 if is_dev else 4, guidance_scale=3.5 if is_dev else 1.0, scheduler="euler"),
        # 74.4 TFLOP a forward pass at 1024 pixels, 2.9 times that with a backward pass that computes twice.
        computed(
            seconds_before=120.0,
            seconds_per_example=0.55,
            seconds_per_image=5.4 if is_dev else 0.9,
            seconds_after=60.0,
        ),
    )


def _guidance(configs: Configs) -> GuidanceName:
    return "embedded" if configs.of("transformer").get("guidance_embeds") else "none"


def _architecture(configs: Configs) -> Architecture:
    transformer = configs.of("transformer")
    is_published = (transformer.get("num_layers"), transformer.get("num_single_layers")) == (19, _SINGLE_BLOCKS)
    variant = "dev" if transformer.get("guidance_embeds") else "schnell"
    return Architecture(f"flux-1-{variant}" if is_published else "", "flux1" if is_published else "", None)


TRAITS = FamilyTraits(
    pipeline="FluxPipeline",
    tag="flux",
    adaptable=("transformer", "text_encoder"),
    tokenizers=("tokenizer_2",),
    longest_prompt=lambda longest: min(longest - 1, _LONGEST),
    guidance=_guidance,
    schedulers=SCHEDULERS,
    targets={
        "attention": [*_ATTENTION, *_TEXT_ATTENTION],
        "attention_and_convolution": [*_ATTENTION, *_TEXT_ATTENTION],
        "all": [*_ATTENTION, *_TEXT_ATTENTION, *_ROUND_ATTENTION],
    },
    sizes=sizes,
    architecture=_architecture,
    kohya_prefixes={"transformer": "lora_unet", "text_encoder": "lora_te1"},
    preset=_preset,
    kohya_place=flux_place,
    kohya_module="networks.lora_flux",
    # As sd-scripts has it (library/sai_model_spec.py).
    kohya_implementation="https://github.com/black-forest-labs/flux",
    training_weights="bfloat16",
)
