"""What a request wears: its adapters as one bank's layers see them, and adapters in host memory, ready to be worn.

Its one rule: an adapter is packed for its slot when it is read, off the step loop; one that fits no slot keeps its
tensors and is worn by batches of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from inference_service.denoising.slots import PackedAdapter, SlotBank
from inference_service.engine import HostAdapter


@dataclass(frozen=True)
class Garment:
    """An adapter's part for one bank, with the weight that a request gives it."""

    digest: str
    weight: float
    part: PackedAdapter | Mapping[str, Tensor]
    """Packed for a slot, or tensors by their names in the file where it fits none."""


Outfit = tuple[Garment, ...]
"""What one image wears on one bank's layers; empty: the base model alone."""
OutfitKey = tuple[tuple[str, float], ...]


def key_of(outfit: Outfit) -> OutfitKey:
    """Equal for outfits that do the same."""
    return tuple((garment.digest, garment.weight) for garment in outfit)


def fits_slots(outfit: Outfit) -> bool:
    """Whether images that wear it can share a batch with any others."""
    return all(isinstance(garment.part, PackedAdapter) for garment in outfit)


@dataclass(frozen=True)
class SlottedAdapter(HostAdapter):
    """An adapter in host memory in the engine's own form. None: it does not touch those modules."""

    denoiser: PackedAdapter | Mapping[str, Tensor] | None
    text: PackedAdapter | Mapping[str, Tensor] | None


def slotted(tensors: Mapping[str, Tensor], prefix: str, denoiser: SlotBank, text: SlotBank) -> SlottedAdapter:
    """Pack an adapter that was read and checked. prefix: what the keys of the denoiser begin with."""
    parts: list[PackedAdapter | Mapping[str, Tensor] | None] = []
    for bank, is_denoiser in ((denoiser, True), (text, False)):
        own = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{prefix}.") is is_denoiser}
        parts.append((bank.pack(own) or own) if own else None)
    return SlottedAdapter({}, sum(map(_size, parts)), *parts)


def outfit(worn: Iterable[tuple[str, float, PackedAdapter | Mapping[str, Tensor] | None]]) -> Outfit:
    """From (digest, weight, part) of each adapter that a request names."""
    weights: dict[str, float] = {}
    parts: dict[str, PackedAdapter | Mapping[str, Tensor]] = {}
    for digest, weight, part in worn:
        if part is not None:
            # Two adapters may have the same file; they are one with both their weights.
            weights[digest] = weights.get(digest, 0.0) + weight
            parts[digest] = part
    # At weight 0 a DoRA would still set its magnitudes.
    return tuple(Garment(digest, weights[digest], part) for digest, part in parts.items() if weights[digest])


def _size(part: PackedAdapter | Mapping[str, Tensor] | None) -> int:
    if part is None:
        return 0
    if isinstance(part, PackedAdapter):
        return part.values.nbytes
    return sum(tensor.nbytes for tensor in part.values())
