"""What is read of every family's files without loading them: its layers."""

from typing import Any

import torch

from base_models.catalog import BaseModelEntry
from base_models.layer_shapes import read_layer_shapes


def test_layers_read_from_files_are_those_of_the_loaded_modules(entry: BaseModelEntry, base: Any) -> None:
    loaded = {
        f"{part}.{name}": tuple(layer.weight.shape)
        for part, module in base.adaptable.items()
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert read_layer_shapes(entry) == loaded
