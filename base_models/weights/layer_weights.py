"""The weight of a layer, as what it stands for: quantised ones are packed, or of a class of their library's.

Its one rule: nobody else asks a layer's `weight` for its shape or its numbers.
"""

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import Tensor

Layer = torch.nn.Linear | torch.nn.Conv2d


def weight_shape(layer: Layer) -> tuple[int, ...]:
    """Linear [out, in], of a convolution [out, in, kh, kw]."""
    if isinstance(layer, torch.nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size


def is_quantised(layer: Layer) -> bool:
    """Whether its weight is not simply numbers."""
    return type(layer.weight) is not torch.nn.Parameter


def full_weight(layer: Layer) -> Tensor:
    """Its numbers."""
    weight: Tensor = dequantize_module_weight(layer)
    return weight
