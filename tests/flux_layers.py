"""A FLUX.1 transformer in miniature: the shapes of its layers, random adapters of them, and fused files. No torch."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from base_models.adapters.layer_shapes import LayerShapes
from base_models.traits import FAMILIES

FLUX = "FluxPipeline"
TARGETS = FAMILIES[FLUX].targets
WIDTH = 8
_IN = (WIDTH, WIDTH)
DOUBLE = {
    **dict.fromkeys((f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "to_add_out")), _IN),
    **dict.fromkeys((f"attn.add_{name}_proj" for name in "qkv"), _IN),
    **dict.fromkeys((f"{ff}.net.0.proj" for ff in ("ff", "ff_context")), (4 * WIDTH, WIDTH)),
    **dict.fromkeys((f"{ff}.net.2" for ff in ("ff", "ff_context")), (WIDTH, 4 * WIDTH)),
}
SINGLE = {
    **dict.fromkeys((f"attn.{name}" for name in ("to_q", "to_k", "to_v")), _IN),
    "proj_mlp": (4 * WIDTH, WIDTH),
    "proj_out": (WIDTH, 5 * WIDTH),
}
SHAPES: LayerShapes = {
    **{f"transformer.transformer_blocks.{block}.{name}": shape for block in (0, 1) for name, shape in DOUBLE.items()},
    **{
        f"transformer.single_transformer_blocks.{block}.{name}": shape
        for block in (0, 10)
        for name, shape in SINGLE.items()
    },
    "transformer.proj_out": (4, WIDTH),
    "transformer.norm_out.linear": (2 * WIDTH, WIDTH),
    "text_encoder.encoder.layers.0.self_attn.q_proj": _IN,
}
"""Blocks 1 and 10, so that a name that ends with one and begins with the other is told apart."""

Tensors = dict[str, np.ndarray[Any, Any]]


def targeted(endings: Iterable[str]) -> list[str]:
    """The transformer's layers that a training with these targets adapts."""
    wanted = tuple(f".{ending}" for ending in endings)
    return [layer for layer in SHAPES if layer.startswith("transformer.") and layer.endswith(wanted)]


def adapter(layers: Iterable[str], seed: int = 0, is_dora: bool = False, ranks: tuple[int, ...] = (2,)) -> Tensors:
    """Random tensors in our own names; layers have these ranks by turns."""
    dice, tensors = np.random.default_rng(seed), Tensors()
    for number, layer in enumerate(layers):
        (outputs, inputs), rank = SHAPES[layer], ranks[number % len(ranks)]
        tensors[f"{layer}.lora_A.weight"] = dice.standard_normal((rank, inputs), np.float32) / 10
        tensors[f"{layer}.lora_B.weight"] = dice.standard_normal((outputs, rank), np.float32) / 10
        if is_dora:
            tensors[f"{layer}.lora_magnitude_vector.weight"] = dice.random(outputs, np.float32) + 1
    return tensors


def pair(outputs: int, inputs: int, rank: int = 3, seed: int = 1) -> tuple[Any, Any]:
    """Random A and B."""
    dice = np.random.default_rng(seed)
    a, b = dice.standard_normal((rank, inputs), np.float32), dice.standard_normal((outputs, rank), np.float32)
    return a / 10, b / 10


def update(tensors: Tensors, layer: str) -> np.ndarray[Any, Any]:
    """What an adapter in our own names adds to a layer's weights; zeros where it does not change it."""
    if f"{layer}.lora_A.weight" not in tensors:
        return np.zeros(SHAPES[layer])
    return tensors[f"{layer}.lora_B.weight"].astype(np.float64) @ tensors[f"{layer}.lora_A.weight"].astype(np.float64)
