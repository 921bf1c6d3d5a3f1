"""Where a base model's weights lie while it is served: which of them fit the device, and which come when they are used.

Its one rule: decided before anything is loaded, by arithmetic on what the files' headers say. Imports no torch.
"""

import math
from collections.abc import Mapping
from typing import Literal

from base_models.catalog import BaseModelEntry
from base_models.safetensors_header import TensorPlace, file_header
from base_models.weights.quantisation import QUANTISED_SUFFIX
from base_models.weights.weight_files import files_of, parts

OffloadName = Literal["none", "model", "group"]
"""none: all weights on the device. model: the denoiser stays there, of the other parts the one that was used last.
group: of the denoiser only the blocks that compute, and the next; of the others likewise."""

PlacementName = Literal["model", "group", "on_request"]
"""on_request: as `model`, but what came stays until it is asked to leave."""

AUTOENCODER = "vae"
# What the names of number formats begin with; eight bits, as checkpoints may have, are widened as any.
_FLOATS = ("F", "BF")
_FLOAT32_BYTES, _HALF_BYTES = 4, 2
# What a few pictures are computed in beside the weights; where it is too little for a batch, batches become smaller.
_WORKING_BYTES = 4 * 1024**3


def weight_bytes(entry: BaseModelEntry, item_bytes: int) -> dict[str, int]:
    """What each part takes once loaded with so many bytes a number, which the autoencoder and quantised models have of
    their own; packed weights take what they take in the files.

    Raises NotSafetensors where a file is damaged, OSError, ValueError.
    """
    found: dict[str, int] = {}
    for part in parts(entry):
        # Several files of a part are shards, or the same tensors in another number format.
        places = {name: place for path in files_of(entry.folder / part) for name, place in file_header(path).items()}
        wide = _FLOAT32_BYTES if part == AUTOENCODER else _HALF_BYTES if entry.is_quantised else item_bytes
        found[part] = sum(_loaded_bytes(name, place, wide) for name, place in places.items())
    return found


def choose_offload(bytes_by_part: Mapping[str, int], denoiser: str, free_bytes: int, slot_bytes: int) -> OffloadName:
    """The fastest that fits. free_bytes: of the device. slot_bytes: what adapters will take there."""
    left = free_bytes - slot_bytes - _WORKING_BYTES
    others = [size for part, size in bytes_by_part.items() if part != denoiser]
    if bytes_by_part[denoiser] + sum(others) <= left:
        return "none"
    return "model" if bytes_by_part[denoiser] + max(others, default=0) <= left else "group"


def _loaded_bytes(name: str, place: TensorPlace, item_bytes: int) -> int:
    is_float = place.dtype.startswith(_FLOATS) and not name.endswith(QUANTISED_SUFFIX)
    return item_bytes * math.prod(place.shape) if is_float else place.stop - place.start
