"""The contestants by name, each behind the engine's port: those of `make bench`, and those of `make bench-gpu`."""

from collections.abc import Callable

import torch

from base_models.catalog import BaseModelEntry
from base_models.loading import load_base_model
from inference_service.denoising.step_engine import StepEngine
from tests.benchmarks.serving_engines.counters import CountingEngine
from tests.benchmarks.serving_engines.pipeline_engine import PipelineEngine, by_adapters, by_caller
from tests.benchmarks.serving_engines.wardrobes import Reloading, Resident, SwitchedByLayer

_SLOT_RANK, _SLOT_BYTES = 16, 1024**3
MOST_TOGETHER = 16
"""Images of one batch, for every contestant."""

RELOADING, SET_ADAPTERS, GROUPED, OURS = "load_lora_weights", "set_adapters", "grouped by adapter", "ours"
PLAIN = "plain diffusers"


def _reloading(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return PipelineEngine(entry, dtype, MOST_TOGETHER, Reloading, by_caller)


def _set_adapters(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return PipelineEngine(entry, dtype, MOST_TOGETHER, Resident, by_caller)


def _grouped(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return PipelineEngine(entry, dtype, MOST_TOGETHER, SwitchedByLayer, by_adapters)


def _ours(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return step_engine(entry, dtype, _SLOT_BYTES)


def step_engine(entry: BaseModelEntry, dtype: torch.dtype, slot_bytes: int) -> StepEngine:
    """Ours, with so much room for adapters on the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return StepEngine(entry, load_base_model(entry, device, dtype), MOST_TOGETHER, _SLOT_RANK, slot_bytes)


def plain_diffusers(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    """All adapters resident, `set_adapters` before each batch, and together whatever one call of the pipeline draws."""
    return PipelineEngine(entry, dtype, MOST_TOGETHER, Resident, by_adapters)


FACTORIES: dict[str, Callable[[BaseModelEntry, torch.dtype], CountingEngine]] = {
    RELOADING: _reloading,
    SET_ADAPTERS: _set_adapters,
    GROUPED: _grouped,
    OURS: _ours,
}
