"""How large a base model's networks are, from the headers of its files. Imports no torch, reads no weights."""

from dataclasses import dataclass

from base_models.adapters.layer_shapes import LayerShapes, read_layer_shapes
from base_models.catalog import BaseModelEntry
from base_models.weights.placement import weight_bytes

_FLOAT32_BYTES, _HALF_BYTES = 4, 2


@dataclass(frozen=True)
class WeightBytes:
    """`others`: text encoders and autoencoder, which on a GPU are away while steps do not need them."""

    denoiser: int
    others: int

    @property
    def all(self) -> int:
        """Together."""
        return self.denoiser + self.others


@dataclass(frozen=True)
class NetworkSizes:
    """Weights as a GPU and as a CPU hold them while training, and the layers that adapters may change."""

    on_gpu: WeightBytes
    on_cpu: WeightBytes
    layers: LayerShapes


def computes_in_halves(entry: BaseModelEntry, on_gpu: bool) -> bool:
    """Whether a training holds the denoiser in 16 bits, and so computes in them whatever precision was asked."""
    return entry.is_quantised or (on_gpu and entry.traits.training_weights != "float32")


def read_network_sizes(entry: BaseModelEntry) -> NetworkSizes:
    """Read a base model's headers. Raises NotSafetensors where a file is damaged, OSError, ValueError."""
    return NetworkSizes(_weights(entry, on_gpu=True), _weights(entry, on_gpu=False), read_layer_shapes(entry))


def _weights(entry: BaseModelEntry, on_gpu: bool) -> WeightBytes:
    found = weight_bytes(entry, _HALF_BYTES if computes_in_halves(entry, on_gpu) else _FLOAT32_BYTES)
    denoiser = found.pop(entry.traits.denoiser)
    return WeightBytes(denoiser, sum(found.values()))
