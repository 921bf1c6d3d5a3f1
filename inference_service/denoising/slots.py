"""Slots: the place on the device where adapters lie next to each other, one tensor for all of them.

Its one rule: a slot is one row of the bank, and an adapter in host memory is such a row already; so bringing one in is
one copy, and nothing about the network changes. Slot 0 is all zeros: the base model alone.

Shapes: S slots, R the bank's rank, I/O a layer's inputs (times its kernel's area) and outputs.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from base_models.weights.layer_weights import Layer, weight_shape

NO_ADAPTER = 0


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer's two halves lie in a slot, and how large they are."""

    start: int
    inputs: int
    outputs: int
    rank: int

    @property
    def down(self) -> slice:
        """A transposed: [I, R], so that multiplying by it reads memory in order."""
        return slice(self.start, self.start + self.rank * self.inputs)

    @property
    def up(self) -> slice:
        """B transposed: [R, O], likewise."""
        return slice(self.down.stop, self.down.stop + self.rank * self.outputs)


class SlotsExceeded(Exception):
    """A batch wears more different adapters than there are slots; its halves may not."""


class SlotLayout:
    """Which layers a slot has room for, by their names in adapter files, and up to which rank."""

    def __init__(self, layers: Mapping[str, Layer], rank: int) -> None:
        self.rank = rank
        self.places: dict[str, LayerPlace] = {}
        start = 0
        for name, layer in layers.items():
            outputs, *inputs = weight_shape(layer)
            self.places[name] = LayerPlace(start, math.prod(inputs), outputs, rank)
            start = self.places[name].up.stop
        self.size = start

    def pack(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> "PackedAdapter | None":
        """A slot's content from the tensors of an adapter file, or None where they do not fit: higher ranks, DoRA,
        layers without a place. Tensors of other modules are left out."""
        values = torch.zeros(self.size, dtype=dtype)
        layers, rank = set(), 0
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition(".lora_")
            place = self.places.get(name)
            used = tensor.shape[0] if kind == "A.weight" else tensor.shape[1] if kind == "B.weight" else None
            if place is None or used is None or used > self.rank:
                return None
            if kind == "A.weight":
                values[place.down].view(place.inputs, self.rank)[:, :used] = tensor.reshape(used, -1).T
            else:
                values[place.up].view(self.rank, place.outputs)[:used] = tensor.reshape(-1, used).T
            layers.add(name)
            rank = max(rank, used)
        return PackedAdapter(values, frozenset(layers), rank)

    def unpack(self, packed: "PackedAdapter") -> dict[str, tuple[Tensor, Tensor]]:
        """A [rank, I] and B [O, rank] of each layer."""
        halves = {}
        for name in packed.layers:
            place = self.places[name]
            down = packed.values[place.down].view(place.inputs, self.rank)[:, : packed.rank].T
            up = packed.values[place.up].view(self.rank, place.outputs)[: packed.rank].T
            halves[name] = down, up
        return halves


@dataclass(frozen=True)
class PackedAdapter:
    """A slot's content in host memory."""

    values: Tensor
    layers: frozenset[str]
    rank: int


class SlotBank:
    """Slots on the device, the longest unused given up first. Used by one thread; `digests` may be read by any."""

    def __init__(self, layout: SlotLayout, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.layout = layout
        self.capacity = slots
        self.values_SN = torch.zeros(1 + slots, layout.size, device=device, dtype=dtype)
        self._held: OrderedDict[str, tuple[int, PackedAdapter]] = OrderedDict()
        self._free = list(range(slots, 0, -1))
        self.digests: frozenset[str] = frozenset()

    def pack(self, tensors: Mapping[str, Tensor]) -> PackedAdapter | None:
        """See SlotLayout.pack; in memory that a GPU copies from without waiting for the processor."""
        packed = self.layout.pack(tensors, self.values_SN.dtype)
        if packed is None or not self.values_SN.is_cuda:
            return packed
        return replace(packed, values=packed.values.pin_memory())

    def hold(self, wanted: Mapping[str, PackedAdapter]) -> dict[str, int]:
        """The slot of each adapter, by its digest; those that had none are copied in.

        Raises SlotsExceeded where more are wanted than there are slots.
        """
        if len(wanted) > self.capacity:
            raise SlotsExceeded(f"{len(wanted)} adapters do not fit {self.capacity} slots together")
        for digest in wanted:
            if digest in self._held:
                self._held.move_to_end(digest)
        missing = [digest for digest in wanted if digest not in self._held]
        for digest in missing:
            if not self._free:
                # Wanted ones were moved to the end, so the first is not among them.
                _, (slot, _) = self._held.popitem(last=False)
                self._free.append(slot)
            slot = self._free.pop()
            self.values_SN[slot].copy_(wanted[digest].values, non_blocking=True)
            self._held[digest] = (slot, wanted[digest])
        if missing:
            self.digests = frozenset(self._held)
        return {digest: self._held[digest][0] for digest in wanted}

    def layers_of(self, digests: Iterable[str]) -> frozenset[str]:
        """All layers that any of these held adapters changes."""
        return frozenset().union(*(self._held[digest][1].layers for digest in digests))

    def rank_of(self, digests: Iterable[str]) -> int:
        """The largest rank among these held adapters."""
        return max((self._held[digest][1].rank for digest in digests), default=0)
