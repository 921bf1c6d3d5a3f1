"""The adapter file: how it is written, and the rules by which one from anywhere is read.

Its one rule: a file's header configures nothing. diffusers builds its LoRA configuration from header metadata, which
can change the base weights or hang the process; here only tensors are taken, and only those that fit the base model.
"""

from collections.abc import Mapping

import safetensors.torch
import torch
from torch import Tensor

from base_models.adapters.adapter_rules import AdapterInvalid, adapter_header, check_dtypes, check_layers, layers_of
from base_models.weights.layer_weights import weight_shape


def write_adapter(parts: Mapping[str, Mapping[str, Tensor]], scale: float) -> bytes:
    """Bytes of a safetensors file: `{prefix}.{module}.lora_A.weight`, `…lora_B.weight`, and of a DoRA
    `…lora_magnitude_vector.weight` too.

    parts: the PEFT state dict of each module that was trained, by its prefix, for example `unet`. scale: alpha / rank;
    it is folded into B, so that a reader who knows no alpha (and takes alpha = rank) computes the same update.
    """
    tensors = {
        f"{prefix}.{_file_name(name)}": (tensor * scale if ".lora_B." in name else tensor)
        .detach()
        .float()
        .cpu()
        .contiguous()
        for prefix, lora in parts.items()
        for name, tensor in lora.items()
    }
    return safetensors.torch.save(tensors)


def read_adapter(body: bytes, modules: Mapping[str, torch.nn.Module]) -> dict[str, Tensor]:
    """Tensors of an adapter file, by the names it uses, each checked against its module. Raises AdapterInvalid.

    modules: what adapters may change, by the prefix of its keys; see BaseModel.adaptable. Only names and shapes are
    looked at, so they may be on the meta device.
    """
    check_dtypes(adapter_header(body))
    try:
        tensors = safetensors.torch.load(body)
    except Exception as error:
        raise AdapterInvalid(f"not a safetensors file: {error}") from error
    # Norms and embeddings have weights too, but no LoRA. A layer that wears another adapter lies one level deeper.
    shapes = {
        f"{prefix}.{name.removesuffix('.base_layer')}": weight_shape(layer)
        for prefix, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    check_layers(layers_of(tensors, modules), shapes, lambda tensor: tensor.float().norm().item())
    return tensors


def adapter_rank(tensors: dict[str, Tensor]) -> int:
    """The largest rank among an adapter's modules."""
    return max(tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A.weight"))


def _file_name(peft_name: str) -> str:
    # PEFT takes this name with and without its end, transformers only with it.
    return f"{peft_name}.weight" if peft_name.endswith(".lora_magnitude_vector") else peft_name
