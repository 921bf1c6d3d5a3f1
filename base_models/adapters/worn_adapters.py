"""Adapters on the modules of a base model: put on, weighed, taken off.

Its one rule: a module wears exactly the tensors it was given, and its own weights are never written.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from diffusers.utils import recurse_remove_peft_layers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer, cast_adapter_dtype
from torch import Tensor


def put_on(
    modules: Mapping[str, torch.nn.Module], tensors: Mapping[str, Tensor], name: str, is_exact: bool = False
) -> None:
    """Give the modules an adapter under a new name; it takes effect with `wear`.

    tensors: as `read_adapter` gives them. is_exact: held in float32 whatever the module is held in, as those that are
    being trained are; otherwise in the module's dtype. Raises RuntimeError, and leaves nothing behind, where PEFT did
    not take all.
    """
    for prefix, module in modules.items():
        wanted = {
            _peft_name(key, prefix): tensor.to(torch.float32 if is_exact else module.dtype)
            for key, tensor in tensors.items()
            if key.startswith(f"{prefix}.")
        }
        if not wanted:
            continue
        inject_adapter_in_model(_configuration(wanted), module, name, state_dict=wanted)
        if is_exact:
            cast_adapter_dtype(module, name)
        set_peft_model_state_dict(module, wanted, name)
        arrived = get_peft_model_state_dict(module, adapter_name=name, save_embedding_layers=False)
        # PEFT drops keys that it cannot place without an error.
        if arrived.keys() != wanted.keys() or not all(
            torch.equal(arrived[key].cpu(), wanted[key].cpu()) for key in wanted
        ):
            drop(modules, name)
            raise RuntimeError(f"not every tensor of adapter {name} was taken by {prefix}")


def wear(modules: Mapping[str, torch.nn.Module], weights: Mapping[str, float]) -> None:
    """Have the adapters with these names take effect, in this order and with these weights, and no others."""
    for layer in _layers(modules):
        layer.set_adapter(list(weights), inference_mode=True)
        for name, weight in weights.items():
            layer.set_scale(name, weight)


def drop(modules: Mapping[str, torch.nn.Module], name: str) -> None:
    """Forget an adapter."""
    for layer in _layers(modules):
        # Otherwise PEFT chooses another one to be worn in its place.
        layer.set_adapter([worn for worn in layer.active_adapters if worn != name], inference_mode=True)
        layer.delete_adapter(name)
    for module in modules.values():
        getattr(module, "peft_config", {}).pop(name, None)


def take_off(modules: Mapping[str, torch.nn.Module]) -> None:
    """Forget all adapters; the modules are then the very objects they were before."""
    for module in modules.values():
        recurse_remove_peft_layers(module)
        if hasattr(module, "peft_config"):
            del module.peft_config
        # What diffusers and transformers remember where an adapter came by their own methods.
        module._hf_peft_config_loaded = False


def _layers(modules: Mapping[str, torch.nn.Module]) -> Iterator[BaseTunerLayer]:
    for module in modules.values():
        # A list, since callers change what they walk over.
        yield from [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def _peft_name(key: str, prefix: str) -> str:
    """PEFT's name of a tensor that an adapter file calls `key`."""
    return key.removeprefix(f"{prefix}.").replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _configuration(tensors: Mapping[str, Tensor]) -> LoraConfig:
    """What the tensors themselves say: which modules, of which ranks, and alpha = rank."""
    suffix = ".lora_A.weight"
    ranks = {key.removesuffix(suffix): tensor.shape[0] for key, tensor in tensors.items() if key.endswith(suffix)}
    rank = max(ranks.values())
    others = {f"^{re.escape(module)}": found for module, found in ranks.items() if found != rank}
    return LoraConfig(
        r=rank,
        lora_alpha=rank,
        rank_pattern=others,
        alpha_pattern=others,
        target_modules=list(ranks),
        use_dora=any(key.endswith(".lora_magnitude_vector") for key in tensors),
        inference_mode=True,
    )
