"""What adapters do inside the network: low-rank updates that differ from row to row of one batch.

Its one rule: layers are prepared once, when the base model is loaded, by a forward hook; which adapters a batch wears
is said before its forward pass, and base weights are never written.

Shapes: N rows of the batch, M images (or prompts) that its rows belong to, K adapters an image, R rank, T tokens, I/O
inputs and outputs, C channels, H/W height and width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from base_models.weights.layer_weights import Layer, full_weight
from inference_service.denoising.outfits import Garment, Outfit, OutfitKey, fits_slots, key_of
from inference_service.denoising.slots import NO_ADAPTER, LayerPlace, PackedAdapter, SlotBank, SlotLayout


@dataclass(frozen=True)
class _SlotRows:
    """Adapters in slots, chosen image by image."""

    slots_MK: Tensor
    weights_MK: Tensor
    rank: int
    layers: frozenset[str]
    doubled: int


@dataclass(frozen=True)
class _WholeUpdate:
    """One adapter's update of one layer, for a batch whose rows all wear it."""

    down: Tensor
    up: Tensor
    weight: float
    magnitude_ratio: Tensor | None
    """Of a DoRA: its magnitudes over those of the updated weight, output by output."""


@dataclass(frozen=True)
class _WholeBatch:
    """What all rows of a batch wear, by layer."""

    key: OutfitKey
    updates: Mapping[str, Sequence[_WholeUpdate]]


class AdaptedLayers:
    """The layers of some modules that adapters may change, and the slots beside them. Used by one thread."""

    def __init__(self, layers: Mapping[str, Layer], bank: SlotBank) -> None:
        self.bank = bank
        self._layers = dict(layers)
        self._worn: _SlotRows | _WholeBatch | None = None
        for name, layer in layers.items():
            layer.register_forward_hook(self._hook(name, bank.layout.places.get(name)))

    def wear(self, outfits: Sequence[Outfit], doubled: int) -> None:
        """Have the next forward pass's rows wear these, image by image.

        doubled: the first so many images have two rows each, next to each other, the rest one. Outfits that do not fit
        slots must all be the same.
        """
        if not any(outfits):
            self._worn = None
        elif fits_slots(outfits[0]):
            self._worn = self._in_slots(outfits, doubled)
        elif not (isinstance(self._worn, _WholeBatch) and self._worn.key == key_of(outfits[0])):
            self._worn = self._whole(outfits[0])

    def _in_slots(self, outfits: Sequence[Outfit], doubled: int) -> _SlotRows:
        wanted = {garment.digest: garment.part for outfit in outfits for garment in outfit}
        slots = self.bank.hold(wanted)
        most = max(map(len, outfits))
        slots_MK = [[slots[garment.digest] for garment in outfit] for outfit in outfits]
        weights_MK = [[garment.weight for garment in outfit] for outfit in outfits]
        device = self.bank.values_SN.device
        return _SlotRows(
            torch.tensor([row + [NO_ADAPTER] * (most - len(row)) for row in slots_MK], device=device),
            torch.tensor([row + [0.0] * (most - len(row)) for row in weights_MK], device=device).to(
                self.bank.values_SN
            ),
            self.bank.rank_of(wanted),
            self.bank.layers_of(wanted),
            doubled,
        )

    def _whole(self, outfit: Outfit) -> _WholeBatch:
        updates: dict[str, list[_WholeUpdate]] = {}
        for garment in outfit:
            for name, (down, up, magnitudes) in _halves(garment, self.bank.layout).items():
                # Where weights are offloaded, they lie in host memory now.
                base = full_weight(self._layers[name]).to(self.bank.values_SN.device)
                updates.setdefault(name, []).append(_whole_update(base, down, up, garment.weight, magnitudes))
        return _WholeBatch(key_of(outfit), updates)

    def _hook(self, name: str, place: LayerPlace | None) -> Any:
        def adapt(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            worn = self._worn
            if worn is None:
                return output
            if isinstance(worn, _WholeBatch):
                for update in worn.updates.get(name, ()):
                    output = _add_whole(layer, inputs[0], output, update)
                return output
            if place is None or name not in worn.layers:
                return output
            return self._add_slots(layer, place, inputs[0], output, worn)

        return adapt

    def _add_slots(self, layer: Any, place: LayerPlace, x: Tensor, output: Tensor, worn: _SlotRows) -> Tensor:
        down_MIR, up_MRO = self._chosen(place, worn)
        add = _add_to_convolution if isinstance(layer, torch.nn.Conv2d) else _add_to_linear
        doubled, rows = worn.doubled, 2 * worn.doubled
        if doubled in (0, len(down_MIR)):
            return add(layer, x, output, down_MIR, up_MRO)
        with_two = add(layer, x[:rows], output[:rows], down_MIR[:doubled], up_MRO[:doubled])
        return torch.cat([with_two, add(layer, x[rows:], output[rows:], down_MIR[doubled:], up_MRO[doubled:])])

    def _chosen(self, place: LayerPlace, worn: _SlotRows) -> tuple[Tensor, Tensor]:
        """The halves that each image wears; of several adapters, next to each other, the second half weighed."""
        images, adapters = worn.slots_MK.shape
        chosen, bank = worn.slots_MK.flatten(), self.bank.values_SN
        # Where all ranks are low, the zeros after them are neither read nor multiplied.
        down = bank[:, place.down].view(-1, place.inputs, place.rank)[:, :, : worn.rank].index_select(0, chosen)
        up = bank[:, place.up].view(-1, place.rank, place.outputs)[:, : worn.rank].index_select(0, chosen)
        up_MKRO = up.view(images, adapters, worn.rank, place.outputs) * worn.weights_MK[:, :, None, None]
        down_MIKR = down.view(images, adapters, place.inputs, worn.rank).transpose(1, 2)
        return (
            down_MIKR.reshape(images, place.inputs, adapters * worn.rank),
            up_MKRO.view(images, adapters * worn.rank, place.outputs),
        )


def _add_to_linear(layer: Any, x: Tensor, output: Tensor, down_MIR: Tensor, up_MRO: Tensor) -> Tensor:
    """x [N, ..., I], output [N, ..., O]: every image's rows through its own two halves."""
    images, features = len(down_MIR), output.shape[-1]
    low_MTR = torch.bmm(x.reshape(images, -1, x.shape[-1]), down_MIR)
    # Into the layer's output, which nobody else has seen yet: a tensor less to write and to read.
    return output.view(images, -1, features).baddbmm_(low_MTR, up_MRO).view(output.shape)


def _add_to_convolution(layer: Any, x: Tensor, output: Tensor, down_MIR: Tensor, up_MRO: Tensor) -> Tensor:
    """x [N, C, H, W], output [N, O, H', W']: images as groups of one convolution, an image's rows as its batch."""
    images, _, ranks = down_MIR.shape
    each = len(x) // images
    x_eMCHW = x.view(images, each, *x.shape[1:]).transpose(0, 1)
    kernels = down_MIR.transpose(1, 2).reshape(images * ranks, x.shape[1], *layer.kernel_size)
    low = functional.conv2d(
        x_eMCHW.reshape(each, -1, *x.shape[2:]),
        kernels,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=images,
    )
    low_MPR = low.view(each, images, ranks, -1).permute(1, 0, 3, 2).reshape(images, -1, ranks)
    # Channels last, as the base model's own convolutions have them.
    output_NHWO = output.permute(0, 2, 3, 1).contiguous()
    sum_MPO = output_NHWO.view(images, -1, output.shape[1]).baddbmm_(low_MPR, up_MRO)
    return sum_MPO.view(output_NHWO.shape).permute(0, 3, 1, 2)


def adaptable_layers(modules: Mapping[str, torch.nn.Module]) -> dict[str, Layer]:
    """All layers that an adapter could change, by their names in adapter files. modules: by the prefix of the names."""
    return {
        f"{prefix}.{name}": layer
        for prefix, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }


def with_endings(layers: Mapping[str, Layer], endings: Sequence[str]) -> dict[str, Layer]:
    """Those that are called so: what our own adapters change, and what slots have room for."""
    return {name: layer for name, layer in layers.items() if name.endswith(tuple(f".{ending}" for ending in endings))}


def _halves(garment: Garment, layout: SlotLayout) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
    """A, B and magnitudes of each layer."""
    if isinstance(garment.part, PackedAdapter):
        return {name: (down, up, None) for name, (down, up) in layout.unpack(garment.part).items()}
    names = [key.removesuffix(".lora_A.weight") for key in garment.part if key.endswith(".lora_A.weight")]
    return {
        name: (
            garment.part[f"{name}.lora_A.weight"],
            garment.part[f"{name}.lora_B.weight"],
            garment.part.get(f"{name}.lora_magnitude_vector.weight"),
        )
        for name in names
    }


def _whole_update(base: Tensor, down: Tensor, up: Tensor, weight: float, magnitudes: Tensor | None) -> _WholeUpdate:
    """magnitudes: of a DoRA (Liu et al. 2024, equation 5), where the layer computes
    magnitudes * (W + weight * up down) / ||W + weight * up down||, with a norm for each output."""
    down, up = down.to(base).reshape(-1, *base.shape[1:]), up.to(base)
    up = up.reshape(len(base), -1, *(1 for _ in base.shape[2:]))
    if magnitudes is None:
        return _WholeUpdate(down, up, weight, None)
    updated = base.flatten(1) + weight * (up.flatten(1) @ down.flatten(1))
    norms = updated.norm(dim=1).view_as(magnitudes)
    return _WholeUpdate(down, up, weight, magnitudes.to(base) / norms)


def _add_whole(layer: Any, x: Tensor, output: Tensor, update: _WholeUpdate) -> Tensor:
    if isinstance(layer, torch.nn.Conv2d):
        low = functional.conv2d(x, update.down, None, layer.stride, layer.padding, layer.dilation)
        change, bias = update.weight * functional.conv2d(low, update.up), layer.bias
        bias = None if bias is None else bias[:, None, None]
    else:
        change, bias = update.weight * ((x @ update.down.T) @ update.up.T), layer.bias
    if update.magnitude_ratio is None:
        return output + change
    # The bias is no part of the weight, so it is not scaled with it.
    linear = output if bias is None else output - bias.to(output.device)
    return output + (update.magnitude_ratio - 1) * linear + update.magnitude_ratio * change
