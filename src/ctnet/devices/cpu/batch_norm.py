"""Batch normalisation in training by the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, library, pointer
from ctnet.ops import batch_norm as reference

_CHANNELS_LAST = torch.channels_last


def forward(
    input: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the reference returns."""
    if input.dtype not in TYPES or input.numel() == 0:
        return reference.forward(input, weight, bias, shortcut, relu, eps)
    wide, channels = reference.wide(input.dtype), input.shape[1]
    input, weight, bias = input.contiguous(memory_format=_CHANNELS_LAST), _vector(weight, wide), _vector(bias, wide)
    if shortcut is not None:
        shortcut = shortcut.contiguous(memory_format=_CHANNELS_LAST)
    output = reference.maps_like(input)
    mean, variance = torch.empty_like(weight), torch.empty_like(weight)
    library().ctnet_batch_norm(
        input.numel() // channels,
        channels,
        TYPES[input.dtype],
        pointer(input),
        pointer(weight),
        pointer(bias),
        pointer(shortcut),
        relu,
        eps,
        pointer(output),
        pointer(mean),
        pointer(variance),
        torch.get_num_threads(),
    )
    return output, mean, variance


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
    """Return what the reference returns."""
    if input.dtype not in TYPES or input.numel() == 0:
        return reference.backward(grad_output, input, output, weight, bias, mean, variance, relu, adds, eps)
    channels = input.shape[1]
    grad_output = grad_output.to(input.dtype).contiguous(memory_format=_CHANNELS_LAST)
    input, output = (t.contiguous(memory_format=_CHANNELS_LAST) for t in (input, output))
    factors, summands = _vector(weight, mean.dtype), _vector(bias, mean.dtype)
    grad_input = reference.maps_like(input)
    grad_shortcut = reference.maps_like(input) if adds else input.new_empty(0)
    grad_weight, grad_bias = torch.empty_like(factors), torch.empty_like(factors)
    library().ctnet_batch_norm_backward(
        input.numel() // channels,
        channels,
        TYPES[input.dtype],
        pointer(grad_output),
        pointer(input),
        pointer(output),
        pointer(factors),
        pointer(summands),
        pointer(mean),
        pointer(variance),
        relu,
        eps,
        pointer(grad_input),
        pointer(grad_weight),
        pointer(grad_bias),
        pointer(grad_shortcut) if adds else None,
        torch.get_num_threads(),
    )
    return grad_input, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), grad_shortcut


def _vector(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype).contiguous()
