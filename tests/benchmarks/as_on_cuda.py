"""autocast and attention of a GPU, for tensors on the meta device, which knows neither.

Its one rule: what autograd keeps is what it would keep on a GPU. Linear layers and convolutions are in 16 bits,
norms and the like in float32 (the lists in `ATen/autocast_mode.h`). Attention is counted as the flash kernels have it,
which keep queries, keys, values, output and a float32 a row, and no matrix of places by places.

Shapes: B batch, H heads, T places, S other places, D features.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_map

from trainer_service.worker import fused_lora

# Those of the lists that networks of base models call.
_IN_HALVES = ((functional, "linear"), (functional, "conv2d"), (functional, "conv3d"), (torch, "bmm"), (torch, "matmul"))
_IN_FLOAT32 = ("layer_norm", "group_norm", "rms_norm", "interpolate", "softmax", "softplus")


@contextmanager
def as_on_cuda(halves: torch.dtype | None) -> Iterator[None]:
    """halves: what autocast computes in; None: it is off.

    Functions are replaced by name, because a mode of torch's is off where gradient checkpointing computes again.
    """
    with ExitStack() as replaced:

        def replace(owner: Any, name: str, by: Callable[..., Any]) -> None:
            replaced.enter_context(patch.object(owner, name, by))

        if halves is not None:
            for owner, name in _IN_HALVES:
                replace(owner, name, _in(halves, getattr(owner, name)))
            for name in _IN_FLOAT32:
                replace(functional, name, _in(torch.float32, getattr(functional, name)))
        # They ask autocast, which does not answer for this device.
        replace(torch, "is_autocast_enabled", _is_enabled(halves is not None, torch.is_autocast_enabled))
        replace(fused_lora, "_as_autocast", _in(halves, lambda *tensors: list(tensors)))
        # Convolutions of this device forget that their input was in channels-last order.
        replace(fused_lora, "_rows", lambda x_BCHW: x_BCHW.permute(0, 2, 3, 1).reshape(-1, x_BCHW.shape[1]))
        replace(functional, "scaled_dot_product_attention", _in(halves, _attention))
        yield


def _in(dtype: torch.dtype | None, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if dtype is not None:
            args, kwargs = _cast((args, kwargs), dtype)
        return function(*args, **kwargs)

    return called


def _is_enabled(on_meta: bool, elsewhere: Callable[..., bool]) -> Callable[..., bool]:
    return lambda *device_type: on_meta if device_type == ("meta",) else elsewhere(*device_type)


def _cast(tree: Any, dtype: torch.dtype) -> Any:
    def cast(leaf: Any) -> Any:
        is_cast = isinstance(leaf, Tensor) and leaf.dtype in (torch.float32, torch.bfloat16, torch.float16)
        return leaf.to(dtype) if is_cast else leaf

    return tree_map(cast, tree)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_others: Any, **_options: Any) -> Tensor:
    attended: Tensor = _Flash.apply(query, key, value)
    return attended


class _Flash(torch.autograd.Function):
    """query_BHTD, key_BHSD, value_BHSD -> y_BHTD: what it holds, and nothing that is computed."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        # The kernels write place by place, heads within, as the projections wrote the queries.
        y = query.new_empty(query.transpose(1, 2).shape).transpose(1, 2)
        log_sum_BHT = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, y, log_sum_BHT)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, log_sum_BHT = ctx.saved_tensors
        # Sums of gy * y, and the queries' gradient, which is added up in float32.
        scratch = torch.empty_like(log_sum_BHT), query.new_empty(query.shape, dtype=torch.float32)
        gradients = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        del scratch
        return gradients
