"""How large a base model's networks are, from the headers of its files. Imports no torch, reads no weights."""

import json
import math
from dataclasses import dataclass

from base_models.catalog import BaseModelEntry
from base_models.layer_shapes import LayerShapes, file_header, read_layer_shapes

_AUTOENCODER = "vae"
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class NetworkSizes:
    """Bytes of all weights as a GPU and as a CPU hold them while training, and the layers that adapters may change."""

    bytes_on_gpu: int
    bytes_on_cpu: int
    layers: LayerShapes


def read_network_sizes(entry: BaseModelEntry) -> NetworkSizes:
    """Read a base model's headers. Raises NotSafetensors where a file is damaged."""
    index = json.loads((entry.folder / "model_index.json").read_text())
    autoencoder = others = 0
    for part in (entry.folder / name for name in index if name not in entry.traits.without):
        # Several files of a part are shards, or the same tensors in another number format.
        shapes = {name: place.shape for path in part.glob("*.safetensors") for name, place in file_header(path).items()}
        parameters = sum(math.prod(shape) for shape in shapes.values())
        if part.name == _AUTOENCODER:
            autoencoder += parameters
        else:
            others += parameters
    # The autoencoder is float32 everywhere.
    on_gpu = others * _BYTES[entry.traits.training_weights] + 4 * autoencoder
    return NetworkSizes(on_gpu, 4 * (others + autoencoder), read_layer_shapes(entry))
