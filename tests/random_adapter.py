"""Adapters with random weights: enough to change every picture, no training needed."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

from base_models.adapters.adapter_file import write_adapter
from base_models.pipelines import without_weights
from base_models.weights.layer_weights import full_weight

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
ATTENTION_AND_CONVOLUTION = [*ATTENTION, "conv1", "conv2", "conv_shortcut"]
ALL = [*ATTENTION_AND_CONVOLUTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv_in", "conv_out"]
TEXT_ATTENTION = ["q_proj", "k_proj", "v_proj", "out_proj"]


def random_adapter(
    modules: Mapping[str, Any],
    targets: Mapping[str, list[str]],
    seed: int,
    rank: int = 4,
    is_dora: bool = False,
    size: float = 0.1,
) -> bytes:
    """An adapter file for modules of this kind; `targets` says, by prefix, which of their layers it changes.

    size: standard deviation of its numbers. In layers of thousands, 0.1 drowns what the base model says.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = {
        prefix: _random_part(modules[prefix], names, generator, rank, is_dora, size)
        for prefix, names in targets.items()
    }
    return write_adapter(parts, scale=2.0)


def _random_part(
    module: Any, targets: list[str], generator: torch.Generator, rank: int, is_dora: bool, size: float
) -> dict[str, torch.Tensor]:
    # Only names and shapes are wanted of peft, so nothing needs memory.
    with torch.device("meta"):
        configuration = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets)
        blank = inject_adapter_in_model(configuration, without_weights(module), "random")
    shapes = get_peft_model_state_dict(blank, adapter_name="random", save_embedding_layers=False)
    part = {name: size * torch.randn(tensor.shape, generator=generator) for name, tensor in shapes.items()}
    if is_dora:
        for name in [name.removesuffix(".lora_A.weight") for name in part if name.endswith(".lora_A.weight")]:
            part[f"{name}.lora_magnitude_vector"] = _random_magnitudes(
                full_weight(module.get_submodule(name)), generator
            )
    return part


def _random_magnitudes(weight: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The weight's own magnitudes, a tenth more or less, in the shape that PEFT gives them."""
    norms = weight.detach().flatten(1).norm(dim=1)
    norms = norms * (1 + 0.1 * torch.randn(norms.shape, generator=generator))
    return norms if weight.dim() == 2 else norms.view(1, -1, 1, 1)
