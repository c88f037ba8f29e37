"""Max-pooling in training by the compiled kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, WindowShape, library, pointer
from ctnet.ops import max_pool as reference


def forward(input: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return what the reference returns."""
    if input.dtype not in TYPES or input.numel() == 0:
        return reference.forward(input, kernel, stride, padding)
    input = input.contiguous(memory_format=torch.channels_last)
    output, taps = reference.output_like(input, kernel, stride, padding)
    library().ctnet_max_pool(
        WindowShape(*input.shape, *output.shape[2:], kernel, stride, padding),
        TYPES[input.dtype],
        pointer(input),
        pointer(output),
        pointer(taps),
        torch.get_num_threads(),
    )
    return output, taps


def backward(
    grad_output: Tensor, taps: Tensor, height: int, width: int, kernel: int, stride: int, padding: int
) -> Tensor:
    """Return what the reference returns."""
    if grad_output.dtype not in TYPES or grad_output.numel() == 0:
        return reference.backward(grad_output, taps, height, width, kernel, stride, padding)
    grad_output, taps = (t.contiguous(memory_format=torch.channels_last) for t in (grad_output, taps))
    grad = reference.grad_like(grad_output, height, width)
    library().ctnet_max_pool_backward(
        WindowShape(*grad.shape, *taps.shape[2:], kernel, stride, padding),
        TYPES[grad.dtype],
        pointer(grad_output),
        pointer(taps),
        pointer(grad),
        torch.get_num_threads(),
    )
    return grad
