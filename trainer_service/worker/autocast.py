"""Number formats: what a training's weights are held in, what it is computed in, and the contexts that do."""

from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from base_models.family import BaseModel
from base_models.traits.family_traits import FamilyTraits, PrecisionName
from trainer_service.training_config import TrainingConfig

_ACCELERATE: dict[PrecisionName, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
_TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def weights_dtype(traits: FamilyTraits, device: torch.device) -> torch.dtype:
    """What a base model's frozen weights are held in to train on it."""
    return torch.float32 if device.type == "cpu" else getattr(torch, traits.training_weights)


def precision_on(base: BaseModel, asked: PrecisionName) -> PrecisionName:
    """What a training on a base model is computed in: as asked, but for float16 on a CPU, which has no loss scaling
    there, and no speed; and bfloat16 always where the weights are held in that, which say no more than it can."""
    if base.denoiser.dtype == torch.bfloat16:
        return "bfloat16"
    return "float32" if asked == "float16" and base.device.type == "cpu" else asked


def config_on(base: BaseModel, config: TrainingConfig) -> TrainingConfig:
    """The config with the precision that a training on this base model is computed in."""
    return config.model_copy(update={"precision": precision_on(base, config.precision)})


def accelerator_for(config: TrainingConfig, device: torch.device) -> Accelerator:
    """What casts and scales as the config's precision asks."""
    # A warm worker's trainings may differ in precision, which accelerate otherwise fixes for the life of a process. The
    # partial state stays: it holds the connection to other processes.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(mixed_precision=_ACCELERATE[config.precision], cpu=device.type == "cpu")


def quick(base: BaseModel, config: TrainingConfig) -> AbstractContextManager[object]:
    """For drawing: where a GPU trains in 16 bits, float32 would make the seconds of drawing minutes."""
    halves = _TORCH.get(precision_on(base, config.precision)) if base.device.type == "cuda" else None
    return torch.autocast(base.device.type, halves or torch.bfloat16, enabled=halves is not None)
