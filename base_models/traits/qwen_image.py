"""Qwen-Image: what is known without loading it. Imports no torch."""

from base_models.traits.family_traits import (
    Architecture,
    Configs,
    FamilyTraits,
    GenerationDefaults,
    Preset,
    Sizes,
)
from base_models.traits.presets import computed, dreambooth
from base_models.traits.transformer import SCHEDULERS, SIDE

_ATTENTION = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"]
_TEXT_ATTENTION = ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"]
_ROUND_ATTENTION = ["img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"]
# As many tokens as the transformer is shown of Qwen2.5-VL's; five of them are the end of the pipeline's template.
_LONGEST, _END = 1024, 5


def _preset(configs: Configs) -> Preset:
    return dreambooth(
        GenerationDefaults(steps=50, guidance_scale=4.0, scheduler="euler"),
        # 71 TFLOP a forward pass at 1024 pixels, 2.9 times that with a backward pass that computes twice.
        computed(seconds_before=180.0, seconds_per_example=0.52, seconds_per_image=18.0, seconds_after=60.0),
    )


def _sizes(configs: Configs) -> Sizes:
    """Its autoencoder is one of films, and says how often it halves. Patches are two by two latents."""
    halvings = len(configs.of("vae")["temperal_downsample"])
    return Sizes(step=2 * 2**halvings, default=SIDE)


def _architecture(configs: Configs) -> Architecture:
    transformer = configs.of("transformer")
    is_published = (transformer.get("num_layers"), transformer.get("num_attention_heads")) == (60, 24)
    # As musubi-tuner writes them.
    return Architecture("Qwen-Image" if is_published else "", "qwen_image" if is_published else "", None)


TRAITS = FamilyTraits(
    pipeline="QwenImagePipeline",
    tag="qwen-image",
    adaptable=("transformer",),
    tokenizers=("tokenizer",),
    longest_prompt=lambda longest: min(longest, _LONGEST) - _END,
    guidance=lambda configs: "classifier_free",
    schedulers=SCHEDULERS,
    targets={
        "attention": _ATTENTION,
        "attention_and_convolution": _ATTENTION,
        "all": [*_ATTENTION, *_TEXT_ATTENTION, *_ROUND_ATTENTION],
    },
    sizes=_sizes,
    architecture=_architecture,
    kohya_prefixes={"transformer": "lora_unet"},
    preset=_preset,
    kohya_module="networks.lora_qwen_image",
    kohya_readers="Kohya's musubi-tuner and ComfyUI",
    training_weights="bfloat16",
)
