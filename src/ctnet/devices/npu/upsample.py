"""Depthwise transposed convolution by torch's grouped one, in the default memory format."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ctnet.ops.upsample import output_shape


def forward(input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return what the reference returns, stored as the vendor stores it."""
    if input.numel() == 0:  # the vendor takes no empty tensors
        return input.new_zeros(output_shape(input, weight, stride, padding))
    return F.conv_transpose2d(input, weight, stride=stride, padding=padding, groups=input.shape[1])


def backward(grad_output: Tensor, input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return what the reference returns, stored as the vendor stores it."""
    if input.numel() == 0:
        return torch.zeros_like(input), torch.zeros_like(weight)
    pair = ([stride, stride], [padding, padding])
    grad_input, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad_output, input, weight, None, *pair, [1, 1], True, [0, 0], input.shape[1], [True, True, False]
    )
    return grad_input, grad_weight
