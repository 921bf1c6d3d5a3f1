"""Stable Diffusion 3 and 3.5: what is known without loading one. Imports no torch.

Its one rule: which of the published ones a folder holds, its transformer's own configuration says. 3.5 Large Turbo has
that of 3.5 Large, so it counts as that, and who draws with it asks for four steps without guidance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    Preset,
    Reference,
    Sizes,
)
from base_models.traits.presets import computed, dreambooth
from base_models.traits.sd3_names import sd3_place
from base_models.traits.transformer import SCHEDULERS
from base_models.traits.unet import CLIP_MARKS, vae_factor

_ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
_TEXT_ATTENTION = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
# `ff` of the picture and `ff_context` of the prompt.
_ROUND_ATTENTION = ["net.0.proj", "net.2"]
# As many tokens as the pipeline asks of T5, whose end mark takes one.
_LONGEST = 256 - 1


@dataclass(frozen=True)
class _Published:
    """What is known of a published one."""

    architecture: Architecture
    generation: GenerationDefaults
    reference: Reference


def _reference(seconds_per_example: float, seconds_per_image: float) -> Reference:
    return computed(90.0, seconds_per_example, seconds_per_image, seconds_after=40.0)


# Versions are the model types of sd-scripts; steps and scales are those of the pipeline and of the model cards.
# 8.9, 31.1 and 11.2 TFLOP a forward pass at 1024 pixels, 2.1 times that with the backward pass, 10.5 for decoding a
# picture.
_MEDIUM = _Published(
    Architecture("stable-diffusion-v3-medium", "3-medium", None),
    GenerationDefaults(steps=28, guidance_scale=7.0, scheduler="euler"),
    _reference(0.047, 1.3),
)
_LARGE_35 = _Published(
    Architecture("stable-diffusion-v3.5-large", "3-5-large", None),
    GenerationDefaults(steps=28, guidance_scale=3.5, scheduler="euler"),
    _reference(0.165, 4.4),
)
_MEDIUM_35 = _Published(
    Architecture("stable-diffusion-v3.5-medium", "3-5-medium", None),
    GenerationDefaults(steps=40, guidance_scale=4.5, scheduler="euler"),
    _reference(0.06, 2.3),
)
# By the number of layers, and whether some of them have a second attention.
_PUBLISHED: Mapping[tuple[int, bool], _Published] = {
    (24, False): _MEDIUM,
    (38, False): _LARGE_35,
    (24, True): _MEDIUM_35,
}


def _published(configs: Configs) -> _Published | None:
    transformer = configs.of("transformer")
    return _PUBLISHED.get((transformer["num_layers"], bool(transformer.get("dual_attention_layers"))))


def _preset(configs: Configs) -> Preset:
    published = _published(configs) or _MEDIUM
    # The example accumulates its batch of four from single pictures. Its rank of 4 is raised to that of the others.
    return dreambooth(published.generation, published.reference, batch_size=4, learning_rate=4e-4)


def _sizes(configs: Configs) -> Sizes:
    """Places are learned of a square of patches, and a picture has the middle of it."""
    transformer, factor = configs.of("transformer"), vae_factor(configs)
    step = transformer["patch_size"] * factor
    return Sizes(step, transformer["sample_size"] * factor, largest=transformer["pos_embed_max_size"] * step)


def _architecture(configs: Configs) -> Architecture:
    published = _published(configs)
    return published.architecture if published else Architecture("", "", None)


def _without_t5(traits: FamilyTraits, configs: Configs) -> FamilyTraits:
    """T5 may be left out, to save 9 GB; then what CLIP can take is all that is read of a prompt."""
    if "text_encoder_3" not in configs.absent():
        return traits
    return replace(traits, tokenizers=("tokenizer", "tokenizer_2"), longest_prompt=lambda longest: longest - CLIP_MARKS)


TRAITS = FamilyTraits(
    pipeline="StableDiffusion3Pipeline",
    tag="stable-diffusion-3",
    adaptable=("transformer", "text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer_3",),
    longest_prompt=lambda longest: min(longest - 1, _LONGEST),
    guidance=lambda configs: "classifier_free",
    schedulers=SCHEDULERS,
    targets={
        "attention": [*_ATTENTION, *_TEXT_ATTENTION],
        "attention_and_convolution": [*_ATTENTION, *_TEXT_ATTENTION],
        "all": [*_ATTENTION, *_TEXT_ATTENTION, *_ROUND_ATTENTION],
    },
    sizes=_sizes,
    architecture=_architecture,
    kohya_prefixes={"transformer": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"},
    preset=_preset,
    kohya_place=sd3_place,
    kohya_module="networks.lora_sd3",
    training_weights="bfloat16",
    # Both have a projection.
    bare_text_encoders=(),
    in_folder=_without_t5,
)
