"""Three ways in which a diffusers pipeline comes to wear the adapters of the next batch, each quicker than the last."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from base_models.adapters.worn_adapters import put_on, wear
from base_models.pipelines import adaptable_modules
from inference_service.engine import AppliedAdapter


class Wardrobe(Protocol):
    """Dresses one pipeline. Adapters are named by their files' digests, and no two of a call are alike."""

    held: frozenset[str]
    """Those that are loaded."""

    def dress(self, adapters: Sequence[AppliedAdapter]) -> None:
        """Have the pipeline wear these adapters and no others."""
        ...


class Reloading:
    """`load_lora_weights` for every batch, as who serves one adapter at a time does."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.held: frozenset[str] = frozenset()

    def dress(self, adapters: Sequence[AppliedAdapter]) -> None:
        self._pipeline.unload_lora_weights()
        for adapter in adapters:
            _load(self._pipeline, adapter.content.tensors, adapter.digest)
        self.held = frozenset(adapter.digest for adapter in adapters)
        _choose(self._pipeline, adapters)


class Resident:
    """Every adapter is loaded once and stays; `set_adapters` chooses."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self.held: frozenset[str] = frozenset()

    def dress(self, adapters: Sequence[AppliedAdapter]) -> None:
        for adapter in adapters:
            if adapter.digest not in self.held:
                _load(self._pipeline, adapter.content.tensors, adapter.digest)
                self.held |= {adapter.digest}
        if adapters:
            self._pipeline.enable_lora()
            _choose(self._pipeline, adapters)
        elif self.held:
            self._pipeline.disable_lora()


class SwitchedByLayer:
    """As Resident, but each layer is told directly; with 64 loaded, `set_adapters` takes more than twice that time."""

    def __init__(self, pipeline: Any) -> None:
        self._modules = adaptable_modules(pipeline)
        self.held: frozenset[str] = frozenset()

    def dress(self, adapters: Sequence[AppliedAdapter]) -> None:
        for adapter in adapters:
            if adapter.digest not in self.held:
                put_on(self._modules, adapter.content.tensors, adapter.digest)
                self.held |= {adapter.digest}
        wear(self._modules, {adapter.digest: adapter.weight for adapter in adapters})


def _load(pipeline: Any, tensors: Mapping[str, Tensor], name: str) -> None:
    pipeline.load_lora_weights(dict(tensors), adapter_name=name)


def _choose(pipeline: Any, adapters: Sequence[AppliedAdapter]) -> None:
    if adapters:
        pipeline.set_adapters([adapter.digest for adapter in adapters], [adapter.weight for adapter in adapters])
