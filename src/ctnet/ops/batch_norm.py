"""Batch normalisation in training (Ioffe and Szegedy, 2015), with the shortcut and the ReLU that may follow it.

One operator reads and writes a map fewer times than three would. Where a device has no kernel for it, `ctnet.nn` calls
torch's three operators instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

torch.library.define(
    "ctnet::batch_norm",
    "(Tensor input, Tensor weight, Tensor bias, Tensor? shortcut, bool relu, float eps) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "ctnet::batch_norm_backward",
    "(Tensor grad_output, Tensor input, Tensor output, Tensor weight, Tensor bias, Tensor mean, Tensor variance, "
    "bool relu, bool adds, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
)


def batch_norm(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor | None = None,
    *,
    relu: bool = False,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N,C,H,W) normalised by the statistics of this batch, its mean and biased variance (C,), at least float32.

    `relu((input - mean) / sqrt(variance + eps) * weight + bias + shortcut)`, stored channels-last. The first result is
    differentiable in all tensors, the statistics in none. Where a channel holds a number that is not finite, all of its
    results are NaN, even those a ReLU would stop, and so is its variance; other channels are not touched.

    Raises:
        ValueError: shapes, types or devices do not agree, or there are fewer than two values per channel.
    """
    channels = input.shape[1] if input.dim() == 4 else -1
    if channels < 0 or tuple(weight.shape) != (channels,) or tuple(bias.shape) != (channels,):
        raise ValueError(
            "batch_norm: input (N,C,H,W), weight and bias (C,) expected, "
            f"got {tuple(input.shape)}, {tuple(weight.shape)}, {tuple(bias.shape)}"
        )
    if shortcut is not None and (shortcut.shape != input.shape or shortcut.dtype != input.dtype):
        got = f"{tuple(shortcut.shape)} {shortcut.dtype}"
        raise ValueError(
            f"batch_norm: a shortcut like the input {tuple(input.shape)} {input.dtype} expected, got {got}"
        )
    if not input.is_floating_point() or not weight.is_floating_point() or not bias.is_floating_point():
        raise ValueError(f"batch_norm: floating types expected, got {input.dtype}, {weight.dtype}, {bias.dtype}")
    devices = {str(t.device) for t in (input, weight, bias, shortcut) if t is not None}
    if len(devices) > 1:
        raise ValueError(f"batch_norm: one device expected, got {', '.join(sorted(devices))}")
    if input.numel() < 2 * channels:
        raise ValueError(f"batch_norm: more than one value per channel expected in training, got {tuple(input.shape)}")
    results: tuple[Tensor, Tensor, Tensor] = _BatchNorm.apply(input, weight, bias, shortcut, relu, eps)  # type: ignore[no-untyped-call]
    return results


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type of sums and statistics of maps of a type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _column(vector: Tensor) -> Tensor:
    return vector[:, None, None]


def forward(
    input: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return output, mean and variance by the reference."""
    x = input.to(wide(input.dtype))
    if x.shape[1] == 0:  # torch warns of no values
        return maps_like(input), x.new_empty(0), x.new_empty(0)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    y = (x - _column(mean)) * _column(torch.rsqrt(variance + eps) * weight) + _column(bias)
    if shortcut is not None:
        y = y + shortcut
    output = y.relu() if relu else y
    return output.to(input.dtype).contiguous(memory_format=torch.channels_last), mean, variance


def backward(
    grad_output: Tensor,
    input: Tensor,
    output: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    relu: bool,
    adds: bool,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight, bias and shortcut (empty without one) by the reference.

    `output` is what the norm returned where a shortcut was added before a ReLU; elsewhere it is not looked at.
    """
    channels_last = torch.channels_last
    grad = grad_output.to(mean.dtype)
    scale = torch.rsqrt(variance + eps)
    normalised = (input.to(mean.dtype) - _column(mean)) * _column(scale)
    if relu:
        before = output if adds else normalised * _column(weight) + _column(bias)
        grad = torch.where(before <= 0, 0, grad)
    grad_bias, grad_weight = grad.sum((0, 2, 3)), (grad * normalised).sum((0, 2, 3))
    cells = input.numel() // max(1, input.shape[1])
    centred = grad - _column(grad_bias / cells) - normalised * _column(grad_weight / cells)
    grad_input = (centred * _column(weight * scale)).to(input.dtype).contiguous(memory_format=channels_last)
    grad_shortcut = grad.to(input.dtype).contiguous(memory_format=channels_last) if adds else input.new_empty(0)
    return grad_input, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), grad_shortcut


torch.library.impl("ctnet::batch_norm", "default", forward)
torch.library.impl("ctnet::batch_norm_backward", "default", backward)


def maps_like(input: Tensor) -> Tensor:
    """Return an unfilled map of the same shape and type, stored channels-last."""
    return torch.empty(input.shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


@torch.library.register_fake("ctnet::batch_norm")
def _forward_shape(input, weight, bias, shortcut, relu, eps):  # type: ignore[no-untyped-def]
    statistics = [input.new_empty(input.shape[1], dtype=wide(input.dtype)) for _ in range(2)]
    return maps_like(input), *statistics


@torch.library.register_fake("ctnet::batch_norm_backward")
def _backward_shape(grad_output, input, output, weight, bias, mean, variance, relu, adds, eps):  # type: ignore[no-untyped-def]
    grad_shortcut = maps_like(input) if adds else input.new_empty(0)
    return maps_like(input), torch.empty_like(weight), torch.empty_like(weight), grad_shortcut


class _BatchNorm(torch.autograd.Function):
    """The gradient. Registered with the operator, torch would take longer to call it than a small norm takes."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, relu: bool, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        output, mean, variance = torch.ops.ctnet.batch_norm(input, weight, bias, shortcut, relu, eps)
        ctx.relu, ctx.adds, ctx.eps = relu, shortcut is not None, eps
        ctx.save_for_backward(input, output if relu and ctx.adds else input, weight, bias, mean, variance)
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        grad_input, grad_weight, grad_bias, grad_shortcut = torch.ops.ctnet.batch_norm_backward(
            gradients[0], *ctx.saved_tensors, ctx.relu, ctx.adds, ctx.eps
        )
        return grad_input, grad_weight, grad_bias, grad_shortcut if ctx.adds else None, None, None
