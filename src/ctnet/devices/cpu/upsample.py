"""Depthwise transposed convolution by the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, WindowShape, library, pointer
from ctnet.ops import upsample as reference


def _shape(input: Tensor, out_hw: torch.Size, kernel: int, stride: int, padding: int) -> WindowShape:
    return WindowShape(*input.shape, *out_hw, kernel, stride, padding)


def _sums(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _by_tap(weight: Tensor) -> Tensor:
    """Return the weight (C,1,k,k) as (k,k,C) in the type of sums."""
    return weight[:, 0].permute(1, 2, 0).to(_sums(weight.dtype)).contiguous()


def forward(input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return what the reference returns."""
    if input.dtype not in TYPES or input.numel() == 0:
        return reference.forward(input, weight, stride, padding)
    output = reference.output_like(input, weight, stride, padding)
    input, taps = input.contiguous(memory_format=torch.channels_last), _by_tap(weight)
    library().ctnet_upsample(
        _shape(input, output.shape[2:], weight.shape[-1], stride, padding),
        TYPES[input.dtype],
        pointer(input),
        pointer(taps),
        pointer(output),
        torch.get_num_threads(),
    )
    return output


def backward(grad_output: Tensor, input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return what the reference returns."""
    if input.dtype not in TYPES or input.numel() == 0:
        return reference.backward(grad_output, input, weight, stride, padding)
    grad_output = grad_output.to(input.dtype).contiguous(memory_format=torch.channels_last)
    input, taps = input.contiguous(memory_format=torch.channels_last), _by_tap(weight)
    grad_input, grad_taps = torch.empty_like(input), torch.empty_like(taps)
    shape = _shape(input, grad_output.shape[2:], weight.shape[-1], stride, padding)
    kernels, number, threads = library(), TYPES[input.dtype], torch.get_num_threads()
    kernels.ctnet_upsample_grad_map(shape, number, pointer(grad_output), pointer(taps), pointer(grad_input), threads)
    kernels.ctnet_upsample_grad_weight(shape, number, pointer(input), pointer(grad_output), pointer(grad_taps), threads)
    return grad_input, grad_taps.permute(2, 0, 1).unsqueeze(1).to(weight.dtype).contiguous()
