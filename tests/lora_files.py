"""LoRA files as other programs write them: their key names, spelled out from a base model's layers. No torch."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from base_models.adapters.layer_shapes import LayerShapes, read_layer_shapes
from base_models.catalog import BaseModelEntry, read_allow_list

TOON: BaseModelEntry = read_allow_list(["toon-64"])["toon-64"]
SHAPES: LayerShapes = read_layer_shapes(TOON)
LINEAR = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "unet.conv_in"
TEXT = "text_encoder.encoder.layers.0.self_attn.q_proj"

Tensors = dict[str, np.ndarray[Any, Any]]


def halves(layer: str, rank: int = 2, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Random A and B of a layer of toon-64, float32."""
    base, dice = SHAPES[layer], np.random.default_rng(seed)
    a = dice.standard_normal((rank, *base[1:]), np.float32) / 10
    return a, dice.standard_normal((base[0], rank, *(1 for _ in base[2:])), np.float32) / 10


def own(*layers: str, rank: int = 2) -> Tensors:
    """Tensors of some layers in our own names."""
    tensors: Tensors = {}
    for layer in layers or (LINEAR, CONVOLUTION, TEXT):
        tensors[f"{layer}.lora_A.weight"], tensors[f"{layer}.lora_B.weight"] = halves(layer, rank)
    return tensors


def kohya(*layers: str, rank: int = 2, alpha: float = 1.0, dtype: Any = np.float16) -> Tensors:
    """The same as sd-scripts (networks/lora.py) saves them for Stable Diffusion 1: prefix, underscores, alpha."""
    tensors: Tensors = {}
    for layer in layers or (LINEAR, CONVOLUTION, TEXT):
        part, _, path = layer.partition(".")
        stem = {"unet": "lora_unet", "text_encoder": "lora_te_text_model"}[part]
        name = f"{stem}_{path.replace('.', '_')}"
        a, b = halves(layer, rank)
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = a.astype(dtype), b.astype(dtype)
        tensors[f"{name}.alpha"] = np.array(alpha, dtype)
    return tensors


def file(tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file."""
    return safetensors.numpy.save(dict(tensors), metadata)


def bare(header: Any, data: bytes = b"") -> bytes:
    """A file with any header, given as JSON or as bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
