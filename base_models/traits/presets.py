"""Defaults of models that people train on pictures of a person, an animal or a thing. Imports no torch.

Its one rule: they are those of diffusers' DreamBooth-LoRA examples, with a warm-up; a family says what differs there.
"""

from dataclasses import replace
from typing import Any

from base_models.traits.family_traits import GenerationDefaults, Preset, Reference, TrainingDefaults

_TRAINING = TrainingDefaults(
    steps=500,
    batch_size=1,
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
)


def dreambooth(generation: GenerationDefaults, reference: Reference, **training: Any) -> Preset:
    """training: what differs from the other examples, by the names of TrainingDefaults."""
    return Preset(
        class_noun="person",
        generation=generation,
        training=replace(_TRAINING, **training),
        sample_scenes=(", portrait", ", on a beach"),
        reference=reference,
    )


def computed(
    seconds_before: float, seconds_per_example: float, seconds_per_image: float, seconds_after: float
) -> Reference:
    """Times that follow from operation counts: nobody has measured them."""
    return Reference(
        hardware="an H100 at 40 % of its peak, computed from operation counts, start and end guessed, never measured",
        seconds_before=seconds_before,
        seconds_per_example=seconds_per_example,
        seconds_per_image=seconds_per_image,
        seconds_after=seconds_after,
    )
