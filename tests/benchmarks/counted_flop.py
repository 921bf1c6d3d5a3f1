"""What a base model's denoiser computes, counted by torch on the meta device: no weights, no memory, exact.

Its one rule: only the denoiser counts, once forward and once backward, whatever an engine or a loop does besides; so it
is what a utilisation of the hardware (MFU) is made of. A multiplication and an addition count as two.
"""

from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from base_models.family import BaseModel
from base_models.pipelines import without_weights

# Dense bfloat16 operations a second, from the makers' data sheets.
_PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}


@dataclass(frozen=True)
class Flop:
    """Of one picture."""

    forward: float
    training: float
    """Forward, and backward to the low-rank layers; activations are not computed twice."""


def counted_flop(base: BaseModel, side: int, rank: int, targets: list[str]) -> Flop:
    """Of a square picture with sides of so many pixels; targets: name endings of the layers that are trained."""
    args, kwargs = _asked_of_denoiser(base, side)
    blank: Any = without_weights(base.denoiser)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        blank(*args, **kwargs)
    blank.requires_grad_(False)
    with torch.device("meta"):
        adapted = inject_adapter_in_model(LoraConfig(r=rank, target_modules=targets), blank)
    with FlopCounterMode(display=False) as training:
        adapted(*args, **kwargs, return_dict=False)[0].sum().backward()
    return Flop(forward.get_total_flops(), training.get_total_flops())


def utilisation(flop_per_s: float, device: torch.device) -> str:
    """In words: of what the device could do, where that is known."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((peak for name, peak in _PEAK.items() if name in gpu), None)
    return f"{flop_per_s / 1e12:.3g}" if peak is None else f"{flop_per_s / 1e12:.3g} ({flop_per_s / peak:.1%})"


class _Asked(Exception):
    """The denoiser was asked; it need not answer."""


def _asked_of_denoiser(base: BaseModel, side: int) -> tuple[Any, dict[str, Any]]:
    """What the family would give its denoiser for one picture, on the meta device."""
    asked: list[tuple[Any, dict[str, Any]]] = []

    def note(_module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        asked.append((args, kwargs))
        raise _Asked

    hook = base.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    latents_1CHW = torch.zeros(1, *base.latent_shape(side, side), device=base.device)
    timesteps_1 = torch.full((1,), 500.0, device=base.device)
    try:
        with torch.no_grad():
            base.predict(latents_1CHW, timesteps_1, base.encode_prompts(["a picture"]))
    except _Asked:
        pass
    finally:
        hook.remove()
    (args, kwargs) = asked[0]
    told = {name: value for name, value in kwargs.items() if name != "return_dict"}
    return tree_map(_on_meta, args), tree_map(_on_meta, told)


def _on_meta(value: Any) -> Any:
    """In float32, as the modules without weights are: what is counted does not depend on it."""
    if not isinstance(value, Tensor):
        return value
    return value.to("meta", torch.float32 if value.is_floating_point() else value.dtype)
