"""Adapter files that must not be used, by what is wrong with them; each as a stranger would put it into the bucket."""

import json
import math
import pickle
import struct
from collections.abc import Callable

import torch
from safetensors.torch import save

# A layer of toon-64 and its width.
_LAYER, _WIDTH = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", 128
_A, _B = f"{_LAYER}.lora_A.weight", f"{_LAYER}.lora_B.weight"


def good_adapter() -> bytes:
    """One that may be used."""
    return save(_pair())


def _pair(width: int = _WIDTH, rank: int = 4) -> dict[str, torch.Tensor]:
    return {_A: torch.full((rank, width), 0.01), _B: torch.full((width, rank), 0.01)}


def _long_header() -> bytes:
    header = json.dumps({"__metadata__": {"x": "y" * 90_000_000}}).encode()
    return struct.pack("<Q", len(header)) + header


HOSTILE_ADAPTERS: dict[str, Callable[[], bytes]] = {
    "that is a pickle": lambda: pickle.dumps({_A: [1.0]}),
    "with a header of 90 MB": _long_header,
    "with NaN": lambda: save(_pair() | {_A: torch.full((4, _WIDTH), math.nan)}),
    "of rank 4096": lambda: save(_pair(rank=4096)),
    "with an unknown key": lambda: save(_pair() | {"unet.nowhere.lora_A.weight": torch.ones(4, 4)}),
    "without tensors": lambda: save({}),
    "with A without B": lambda: save({_A: _pair()[_A]}),
    "with the wrong shapes": lambda: save(_pair(_WIDTH + 1)),
    "of no bytes": lambda: b"",
    "cut short": lambda: good_adapter()[:-7],
}
HOSTILE_METADATA = {"init_lora_weights": "pissa", "target_modules": "(a+)+$", "lora_alpha": "NaN", "r": "200000"}


def adapter_with_hostile_metadata() -> bytes:
    """One whose tensors are good and whose header asks for the worst: the header configures nothing."""
    return save(_pair(), HOSTILE_METADATA)
