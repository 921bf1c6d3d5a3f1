"""Low-rank layers computed in one piece: what peft's layers compute, in fewer and cheaper operations.

Its one rule: the same function as peft's layer, but for rounding. y = x W^T + b + s (x A^T) B^T (Hu et al. 2021, LoRA,
https://arxiv.org/abs/2106.09685, equation 3), where W and b are frozen. peft computes both summands and adds them, and
so does autograd on the way back; here the low-rank one is added in place by the matrix product that computes it.

Shapes: N rows (pictures, or places in pictures), I inputs, O outputs, R rank, B batch, H/W height and width.
"""

from typing import Any

import torch
from peft.tuners.lora import Conv2d, Linear
from torch import Tensor
from torch.nn import functional

from base_models.weights.layer_weights import is_quantised

_backward_of_convolution = torch.ops.aten.convolution_backward


def fuse(model: torch.nn.Module, adapter: str) -> None:
    """Have the low-rank layers of an adapter computed in one piece, until the adapter is taken off.

    adapter: the only one that the model wears, without dropout. Left to peft are layers that are more than equation 3:
    DoRA, quantised weights, and convolutions in groups, with holes, or with padding that is not of zeros; and, where
    nothing casts, layers that are held in another format than the adapter.
    """
    for layer in model.modules():
        if isinstance(layer, Linear | Conv2d) and adapter not in layer.lora_variant and _is_plain(layer.base_layer):
            layer.forward = _Fused(layer, adapter)


class _Fused:
    """The forward of a layer."""

    def __init__(self, layer: Linear | Conv2d, adapter: str) -> None:
        self._by_peft = layer.forward
        self._base = layer.base_layer
        self._a, self._b = layer.lora_A[adapter], layer.lora_B[adapter]
        self._scale = layer.scaling[adapter]
        self._is_linear = isinstance(layer, Linear)
        self._is_pointwise = not self._is_linear and _is_pointwise(self._base)

    def __call__(self, x: Tensor) -> Tensor:
        base, scale = self._base, self._scale
        if base.weight.dtype != self._a.weight.dtype and not torch.is_autocast_enabled(x.device.type):
            return self._by_peft(x)
        x, weight, bias, a, b = _as_autocast(x, base.weight, base.bias, self._a.weight, self._b.weight)
        if self._is_linear:
            return _LinearLora.apply(x, weight, bias, a, b, scale)
        b_OR = b.flatten(1)
        if self._is_pointwise:
            x_BHWI = x.permute(0, 2, 3, 1)
            y_BHWO = _LinearLora.apply(x_BHWI, weight.flatten(1), bias, a.flatten(1), b_OR, scale)
            return y_BHWO.permute(0, 3, 1, 2)
        return _ConvLora.apply(x, weight, bias, a, b_OR, scale, base.stride, base.padding)


class _LinearLora(torch.autograd.Function):
    """x_..I, weight_OI, bias_O, a_RI, b_OR -> y_..O."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        x_NI = x.reshape(-1, x.shape[-1])
        down_NR = x_NI @ a.T
        y_NO = x_NI @ weight.T if bias is None else torch.addmm(bias, x_NI, weight.T)
        y_NO.addmm_(down_NR, b.T, alpha=scale)
        ctx.save_for_backward(x_NI, down_NR, weight, a, b)
        ctx.scale, ctx.shape = scale, x.shape
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, down_NR, weight, a, b = ctx.saved_tensors
        gy_NO = gy.reshape(-1, gy.shape[-1])
        gdown_NR = (gy_NO @ b).mul_(ctx.scale)
        gx = None
        if ctx.needs_input_grad[0]:
            gx = (gy_NO @ weight).addmm_(gdown_NR, a).view(ctx.shape)
        return gx, None, None, gdown_NR.T @ x_NI, (gy_NO.T @ down_NR).mul_(ctx.scale), None


class _ConvLora(torch.autograd.Function):
    """x_BIHW, weight_OIkk, bias_O, a_RIkk, b_OR -> y_BOHW, in channels-last order."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        scale: float,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        a = a.contiguous(memory_format=torch.channels_last)
        down = functional.conv2d(x, a, None, stride, padding)
        y = functional.conv2d(x, weight, bias, stride, padding).contiguous(memory_format=torch.channels_last)
        _rows(y).addmm_(_rows(down), b.T, alpha=scale)
        ctx.save_for_backward(x, down, weight, a, b)
        ctx.scale, ctx.how = scale, (stride, padding, (1, 1), False, (0, 0), 1)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, down, weight, a, b = ctx.saved_tensors
        gy = gy.contiguous(memory_format=torch.channels_last)
        gdown_NR = (_rows(gy) @ b).mul_(ctx.scale)
        gdown = gdown_NR.view(len(gy), *gy.shape[2:], -1).permute(0, 3, 1, 2)
        gx_by_a, ga, _ = _backward_of_convolution(gdown, x, a, None, *ctx.how, (ctx.needs_input_grad[0], True, False))
        gx = None
        if ctx.needs_input_grad[0]:
            gx, _, _ = _backward_of_convolution(gy, x, weight, None, *ctx.how, (True, False, False))
            gx += gx_by_a
        gb = (_rows(gy).T @ _rows(down)).mul_(ctx.scale)
        return gx, None, None, ga, gb, None, None, None


def _rows(x_BCHW: Tensor) -> Tensor:
    """A view, of a tensor in channels-last order, as a row for each place."""
    return x_BCHW.permute(0, 2, 3, 1).view(-1, x_BCHW.shape[1])


def _is_plain(base_layer: Any) -> bool:
    if is_quantised(base_layer):
        return False
    if isinstance(base_layer, torch.nn.Linear):
        return True
    usual = base_layer.groups == 1 and base_layer.dilation == (1, 1) and base_layer.padding_mode == "zeros"
    return usual and not isinstance(base_layer.padding, str)


def _is_pointwise(convolution: Any) -> bool:
    return (convolution.kernel_size, convolution.stride, convolution.padding) == ((1, 1), (1, 1), (0, 0))


def _as_autocast(x: Tensor, *others: Tensor | None) -> list[Any]:
    """In the number format that autocast asks for, since it does not cast what an autograd function is given."""
    if not torch.is_autocast_enabled(x.device.type):
        return [x, *others]
    dtype = torch.get_autocast_dtype(x.device.type)
    return [None if tensor is None else tensor.to(dtype) for tensor in (x, *others)]
