"""Networks held in fewer bits, computed in float32: for comparing what two adapters make a network say.

Its one rule: a layer's weights are widened while it computes and are then the very tensors that they were. In 16 bits a
rounding that falls otherwise in one layer moves what a deep network says by a hundredth, and hides what is looked for.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from base_models.weights.layer_weights import full_weight, is_quantised

_HALVES = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Have these modules compute in float32 for as long as the context lasts, a few layers at a time."""
    with ExitStack() as stack:
        for module in modules:
            for layer in module.modules():
                if any(value.dtype in _HALVES for value in layer.parameters(recurse=False)):
                    _widen_while_computing(layer, stack)
        yield


def _widen_while_computing(layer: torch.nn.Module, stack: ExitStack) -> None:
    own: dict[str, torch.nn.Parameter] = {}

    def widen(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for name, value in layer.named_parameters(recurse=False):
            if value.dtype in _HALVES:
                own[name] = value
                wide = full_weight(layer) if name == "weight" and is_quantised(layer) else value.data
                layer._parameters[name] = torch.nn.Parameter(wide.float(), requires_grad=False)
        return tuple(map(_wide, args)), {name: _wide(value) for name, value in kwargs.items()}

    def narrow_again(layer: Any, args: tuple[Any, ...], output: Any) -> None:
        layer._parameters.update(own)
        own.clear()

    stack.callback(layer.register_forward_pre_hook(widen, with_kwargs=True).remove)
    # Also after an error, for example where memory runs out.
    stack.callback(layer.register_forward_hook(narrow_again, always_call=True).remove)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALVES else value
