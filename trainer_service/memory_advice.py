"""How much memory a training needs on the device here, and which preset needs less. Pure.

Its one rule: what is not known of the device is not said.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from base_models.catalog import BaseModelEntry
from base_models.network_sizes import NetworkSizes
from trainer_service.training_config import TrainingConfig
from trainer_service.training_memory import Device, DeviceKind, training_memory


@dataclass(frozen=True)
class Measured:
    """What a training on this base model held, and what was computed for it: by so much the next is corrected."""

    kind: DeviceKind
    held_bytes: int
    computed_bytes: int


@dataclass(frozen=True)
class Advice:
    """`smallest` is the preset that needs least, and `least_bytes` how much; both empty where it fits as asked."""

    device_bytes: int
    fits: bool
    smallest: str = ""
    least_bytes: int = 0
    words: str = ""


@dataclass(frozen=True)
class Needs:
    """Computes what trainings of a base model on so many pictures need. device None: not known, taken for a GPU."""

    entry: BaseModelEntry
    sizes: NetworkSizes
    pictures: int
    device: Device | None
    measured: Measured | None = None

    def bytes_of(self, config: TrainingConfig) -> int:
        """At the worst moment. Gradient checkpointing that is automatic comes on only where memory is known to want."""
        kept, recomputed = (self._bytes(config, recomputes) for recomputes in (False, True))
        if config.gradient_checkpointing == "automatic":
            known = self.device.memory_bytes if self.device else 0
            return recomputed if 0 < known < kept else kept
        return recomputed if config.gradient_checkpointing == "always" else kept

    def advice(self, config: TrainingConfig, by_preset: Mapping[str, TrainingConfig]) -> Advice | None:
        """Whether it fits, and what would need least. by_preset: the configs that the same request would have had.

        None where the GPU's memory is not known, or where nobody has counted what the family holds.
        """
        device, needed = self.device, self.bytes_of(config)
        if device is None or not device.memory_bytes or self.entry.activations is None:
            return None
        if needed <= device.memory_bytes:
            return Advice(device.memory_bytes, fits=True, words=f"fits: {_has(needed, device)}")
        needs = {preset: self.bytes_of(other) for preset, other in by_preset.items()}
        smallest = min(needs, key=needs.__getitem__)
        least = needs[smallest]
        name = f"PRESET_{smallest.upper()}"
        rest = (
            f"{name} needs {_gb(least)}"
            if least <= device.memory_bytes
            else f"no preset fits: the least, {name}, needs {_gb(least)}"
        )
        return Advice(device.memory_bytes, False, smallest, least, f"{_has(needed, device)}; {rest}")

    def _bytes(self, config: TrainingConfig, recomputes: bool) -> int:
        kind: DeviceKind = self.device.kind if self.device else "cuda"
        computed = training_memory(config, self.entry, self.sizes, kind, self.pictures, recomputes)
        if self.measured is None or self.measured.kind != kind:
            return computed.total
        correction = self.measured.held_bytes / self.measured.computed_bytes
        rest = computed.total - computed.measurable(kind)
        return rest + round(computed.measurable(kind) * correction)


def _has(needed: int, device: Device) -> str:
    return f"needs {_gb(needed)}, the GPU here has {_gb(device.memory_bytes)}"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
