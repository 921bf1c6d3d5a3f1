"""The contestants by name, each behind the engine's port."""

from collections.abc import Callable

import torch

from base_models.catalog import BaseModelEntry
from tests.benchmarks.serving_engines.counters import CountingEngine
from tests.benchmarks.serving_engines.pipeline_engine import PipelineEngine, by_adapters, by_caller
from tests.benchmarks.serving_engines.wardrobes import Reloading, Resident, SwitchedByLayer

MOST_TOGETHER = 16
"""Images of one batch, for every contestant."""

RELOADING, SET_ADAPTERS, GROUPED, OURS = "load_lora_weights", "set_adapters", "grouped by adapter", "ours"


def _reloading(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return PipelineEngine(entry, dtype, MOST_TOGETHER, Reloading, by_caller)


def _set_adapters(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return PipelineEngine(entry, dtype, MOST_TOGETHER, Resident, by_caller)


def _grouped(entry: BaseModelEntry, dtype: torch.dtype) -> CountingEngine:
    return PipelineEngine(entry, dtype, MOST_TOGETHER, SwitchedByLayer, by_adapters)


FACTORIES: dict[str, Callable[[BaseModelEntry, torch.dtype], CountingEngine]] = {
    RELOADING: _reloading,
    SET_ADAPTERS: _set_adapters,
    GROUPED: _grouped,
    OURS: _set_adapters,
}
