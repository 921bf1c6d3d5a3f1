"""How long a training will take, and in how much memory: scaled from the latest one or from a reference. Pure.

Its one rule: an estimate says what it is derived from.
"""

from dataclasses import dataclass

from base_models.catalog import BaseModelEntry
from base_models.traits.family_traits import Reference
from service_kit.document import Document
from trainer_service.training_config import TrainingConfig

# A magnitude for each output costs a third more; a text encoder that is trained runs, and is differentiated, each step.
_DORA, _TEXT_ENCODER, _COMPUTED_TWICE = 1.35, 1.15, 1.33
# Forward alone, against forward and backward.
_VALIDATION = 1 / 3
_VALIDATION_EXAMPLES = 16


class Speed(Document):
    """What a training on this deployment took, for estimating the next one on the same base model."""

    hardware: str
    training: str
    seconds_before: float
    """From the lease to the first step."""
    seconds_per_example: float
    """Forward and backward of one picture of `resolution`, as plain LoRA."""
    seconds_per_image: float
    """Drawing a picture of `resolution`."""
    seconds_after: float
    """From the last step to the end: proof, evaluation, publication."""
    resolution: int
    batch_size: int
    loaded_bytes: int
    """Memory with the base model loaded."""
    peak_bytes: int
    """Most memory held at once."""


@dataclass(frozen=True)
class Estimate:
    """Seconds from the lease to the end; bytes at the worst moment; and a sentence on where both come from."""

    seconds: float
    peak_bytes: int
    basis: str


def cost_of_an_example(config: TrainingConfig) -> float:
    """How much dearer than plain LoRA an example is."""
    cost = _DORA if config.adapter_type == "dora" else 1.0
    cost *= _TEXT_ENCODER if config.text_encoder_learning_rate else 1.0
    return cost * (_COMPUTED_TWICE if config.gradient_checkpointing == "always" else 1.0)


def estimate(config: TrainingConfig, entry: BaseModelEntry, speed: Speed | None) -> Estimate:
    """Scale what was measured here, or else the base model's reference, to a config."""
    known = speed or _from_reference(entry.reference, entry.default_size)
    area = (config.resolution / known.resolution) ** 2
    a_batch = config.batch_size * config.gradient_accumulation * (2 if config.prior_weight else 1)
    a_step = a_batch * known.seconds_per_example * area * cost_of_an_example(config)
    validations = config.steps // config.validate_every if config.validate_every else 0
    samples = config.steps // config.sample_every * len(config.sample_prompts) if config.sample_every else 0
    seconds = (
        known.seconds_before
        + config.steps * a_step
        + validations * _VALIDATION_EXAMPLES * known.seconds_per_example * area * _VALIDATION
        + samples * known.seconds_per_image * area
        + known.seconds_after
    )
    grown = area * config.batch_size / known.batch_size
    peak = known.loaded_bytes + round((known.peak_bytes - known.loaded_bytes) * grown)
    if speed is None:
        return Estimate(seconds, peak, f"figures of {entry.reference.hardware}; nothing was trained on it here yet")
    return Estimate(seconds, peak, f"{speed.training}, carried out on {speed.hardware}")


def _from_reference(reference: Reference, resolution: int) -> Speed:
    return Speed(
        hardware=reference.hardware,
        training="",
        seconds_before=reference.seconds_before,
        seconds_per_example=reference.seconds_per_example,
        seconds_per_image=reference.seconds_per_image,
        seconds_after=reference.seconds_after,
        resolution=resolution,
        batch_size=1,
        loaded_bytes=reference.loaded_bytes,
        peak_bytes=reference.loaded_bytes + reference.bytes_per_example,
    )
