"""Adapters with random weights: enough to change every picture, no training needed."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict

from base_models.adapter_file import write_adapter

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
ATTENTION_AND_CONVOLUTION = [*ATTENTION, "conv1", "conv2", "conv_shortcut"]
ALL = [*ATTENTION_AND_CONVOLUTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv_in", "conv_out"]


def random_adapter(denoiser: Any, targets: list[str], seed: int, rank: int = 4) -> bytes:
    """An adapter file for a denoiser of this kind."""
    # Only names and shapes are wanted of peft, so nothing needs memory.
    with torch.device("meta"):
        blank = type(denoiser).from_config(denoiser.config)
        blank.add_adapter(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), "random")
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in get_peft_model_state_dict(blank, adapter_name="random").items()
    }
    return write_adapter(tensors, "unet", scale=2.0)
