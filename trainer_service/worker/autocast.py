"""Number formats: which one a device can compute in, and the contexts that do."""

from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from base_models.traits.family_traits import PrecisionName
from trainer_service.training_config import TrainingConfig

_ACCELERATE: dict[PrecisionName, str] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
_TORCH = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def precision_on(device: torch.device, asked: PrecisionName) -> PrecisionName:
    """What is computed in on a device: float16 has no loss scaling, and no speed, on a CPU."""
    return "float32" if asked == "float16" and device.type == "cpu" else asked


def config_on(device: torch.device, config: TrainingConfig) -> TrainingConfig:
    """The config with a precision that the device can compute in."""
    return config.model_copy(update={"precision": precision_on(device, config.precision)})


def accelerator_for(config: TrainingConfig, device: torch.device) -> Accelerator:
    """What casts and scales as the config's precision asks."""
    # A warm worker's trainings may differ in precision, which accelerate otherwise fixes for the life of a process. The
    # partial state stays: it holds the connection to other processes.
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(mixed_precision=_ACCELERATE[config.precision], cpu=device.type == "cpu")


def quick(config: TrainingConfig, device: torch.device) -> AbstractContextManager[object]:
    """For drawing: where a GPU trains in 16 bits, float32 would make the seconds of drawing minutes."""
    halves = _TORCH.get(config.precision) if device.type == "cuda" else None
    return torch.autocast(device.type, halves or torch.bfloat16, enabled=halves is not None)
