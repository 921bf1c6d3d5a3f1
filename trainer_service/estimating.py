"""How long a training will take: scaled from the latest one or from a reference; and in how much memory. Pure.

Its one rule: an estimate says what it is derived from.
"""

from dataclasses import dataclass

from base_models.catalog import BaseModelEntry
from base_models.traits.family_traits import Reference
from service_kit.document import Document
from trainer_service.memory_advice import Advice, Measured
from trainer_service.training_config import TrainingConfig
from trainer_service.training_memory import Device

# A magnitude for each output costs a third more; a text encoder that is trained runs, and is differentiated, each step.
_DORA, _TEXT_ENCODER, _COMPUTED_TWICE = 1.35, 1.15, 1.33
# Forward alone, against forward and backward.
_VALIDATION = 1 / 3
_VALIDATION_EXAMPLES = 16
_NOTHING_YET = "figures of {}; nothing was trained on it here yet"


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
    peak_bytes: int
    """Most memory held at once."""
    computed_bytes: int = 0
    """What is computed for that training; 0: not known, or it ran out of memory, which it then had in full."""
    device: Device | None = None
    """None: from before this was noted."""

    @property
    def measured(self) -> Measured | None:
        """What the next training's memory is corrected by."""
        if self.device is None or not self.computed_bytes:
            return None
        return Measured(self.device.kind, self.peak_bytes, self.computed_bytes)


@dataclass(frozen=True)
class Estimate:
    """Seconds from the lease to the end; bytes at the worst moment; and a sentence on where both come from."""

    seconds: float
    peak_bytes: int
    basis: str
    advice: Advice | None = None
    """Whether that fits; None where the device's memory is not known."""


def cost_of_an_example(config: TrainingConfig) -> float:
    """How much dearer than plain LoRA an example is."""
    cost = _DORA if config.adapter_type == "dora" else 1.0
    cost *= _TEXT_ENCODER if config.text_encoder_learning_rate else 1.0
    return cost * (_COMPUTED_TWICE if config.gradient_checkpointing == "always" else 1.0)


def seconds_of(config: TrainingConfig, entry: BaseModelEntry, speed: Speed | None) -> float:
    """Scale what was measured here, or else the base model's reference, to a config."""
    known: Speed | Reference = speed or entry.reference
    area = (config.resolution / (speed.resolution if speed else entry.default_size)) ** 2
    a_batch = config.batch_size * config.gradient_accumulation * (2 if config.prior_weight else 1)
    a_step = a_batch * known.seconds_per_example * area * cost_of_an_example(config)
    validations = config.steps // config.validate_every if config.validate_every else 0
    samples = config.steps // config.sample_every * len(config.sample_prompts) if config.sample_every else 0
    return (
        known.seconds_before
        + config.steps * a_step
        + validations * _VALIDATION_EXAMPLES * known.seconds_per_example * area * _VALIDATION
        + samples * known.seconds_per_image * area
        + known.seconds_after
    )


def basis_of(entry: BaseModelEntry, speed: Speed | None) -> str:
    """What time and memory are derived from."""
    time = (
        f"{speed.training}, carried out on {speed.hardware}" if speed else _NOTHING_YET.format(entry.reference.hardware)
    )
    if entry.activations is None:
        return f"{time}; memory without activations, which nobody has counted for {entry.traits.tag}"
    memory = "corrected by that training" if speed and speed.measured else "from the base model's files, uncorrected"
    return f"{time}; memory computed, {memory}"
