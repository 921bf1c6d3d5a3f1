"""Diffusers folders without weights: configs and tokenizers, all that the memory of a model depends on.

Its one rule: configs of diffusers say everything, as published ones do: what is not given is the default of its class.
"""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from base_models.catalog import BUNDLED

_LATENTS_CHANNELS = (128, 256, 512, 512)

Part = tuple[str, str, Mapping[str, Any]]
"""A library, a class of its, and what its config says."""


def write_configs(
    folder: Path, pipeline: str, parts: Mapping[str, Part], tokenizers: Mapping[str, PreTrainedTokenizerBase]
) -> None:
    """Write a diffusers folder without weights."""
    index: dict[str, Any] = {"_class_name": pipeline}
    for name, (library, class_name, config) in parts.items():
        index[name] = [library, class_name]
        file = "scheduler_config.json" if name == "scheduler" else "config.json"
        (folder / name).mkdir(parents=True)
        defaults = _defaults(class_name) if library == "diffusers" else {}
        (folder / name / file).write_text(json.dumps({"_class_name": class_name, **defaults, **config}))
    for name, tokenizer in tokenizers.items():
        index[name] = ["transformers", type(tokenizer).__name__]
        tokenizer.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps(index))


def _defaults(class_name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(diffusers, class_name)).parameters
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}


def filling_tokenizer(longest: int) -> PreTrainedTokenizerBase:
    """The bundled CLIP's, for prompts that are filled up: how many tokens there are counts then, and not which."""
    found: PreTrainedTokenizerBase = CLIPTokenizer.from_pretrained(
        BUNDLED["toon-64"] / "tokenizer", model_max_length=longest
    )
    return found


def clip_config(width: int, layers: int, heads: int, hidden_act: str = "quick_gelu") -> dict[str, Any]:
    """Of a CLIP's text encoder: ViT-L/14 at 768, bigG at 1280."""
    return {
        "vocab_size": 49408,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": 77,
        "projection_dim": width,
        "hidden_act": hidden_act,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


def autoencoder_config(latent_channels: int, **others: Any) -> dict[str, Any]:
    """Of an `AutoencoderKL`: all published ones have the channels of the first."""
    return {
        "block_out_channels": _LATENTS_CHANNELS,
        "down_block_types": ("DownEncoderBlock2D",) * len(_LATENTS_CHANNELS),
        "up_block_types": ("UpDecoderBlock2D",) * len(_LATENTS_CHANNELS),
        "layers_per_block": 2,
        "latent_channels": latent_channels,
        **others,
    }
