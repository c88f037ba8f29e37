"""Deformable convolution by the compiled kernels.

They sample the columns of a tile of cells and multiply them by the weight (forward) or by the gradient of the output
(backward). A tile stays in a cache between the two, so the columns of a whole map never exist in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctnet.devices.cpu.native import TYPES, DeformShape, library, pointer, strides
from ctnet.ops import deform_conv_reference as reference

_TILE_BYTES = 4 << 20
_LARGEST_MAP = 2**31 - 1  # pixels, which the kernels count in 32 bits


class _Problem(NamedTuple):
    """A call's tensors in the forms that the kernels take."""

    shape: DeformShape
    map: Tensor  # (N,C,H,W) stored NHWC
    offset: Tensor
    mask: Tensor | None


def _supported(input: Tensor) -> bool:
    return input.dtype in TYPES and input.numel() > 0 and input.shape[2] * input.shape[3] <= _LARGEST_MAP


def _problem(
    input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int],
) -> _Problem:  # fmt: skip
    side = offset.dtype if mask is None or mask.dtype == offset.dtype else None
    if input.dtype != torch.bfloat16 or side not in (torch.bfloat16, torch.float32):
        side = torch.float64 if input.dtype == torch.float64 else torch.float32
    offset = offset.to(side)
    mask = None if mask is None else mask.to(side)
    kernel = weight.shape[2:]
    shape = DeformShape(
        *input.shape,
        *offset.shape[2:],
        *kernel,
        *stride,
        *padding,
        *dilation,
        input.shape[1] // weight.shape[1],
        offset.shape[1] // (2 * kernel[0] * kernel[1]),
        strides(offset),
        strides(offset if mask is None else mask),
    )
    return _Problem(shape, input.contiguous(memory_format=torch.channels_last), offset, mask)


def forward(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> Tensor:
    """Return what the reference returns."""
    if not _supported(input):
        return reference.forward(input, offset, weight, bias, mask, stride, padding, dilation)
    output = reference.output_like(input, offset, weight)
    if output.numel() == 0:
        return output
    problem = _problem(input, offset, weight, mask, stride, padding, dilation)
    weight = weight.to(input.dtype)
    bias = None if bias is None else bias.to(input.dtype).contiguous()
    library().ctnet_deform_conv(
        problem.shape,
        TYPES[input.dtype],
        pointer(problem.map),
        TYPES[problem.offset.dtype],
        pointer(problem.offset),
        pointer(problem.mask),
        pointer(weight),
        strides(weight),
        pointer(bias),
        len(weight),
        pointer(output),
        torch.get_num_threads(),
    )
    return output


def backward(
    grad_output: Tensor,
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    mask: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the reference returns.

    Sums are taken in float32 (float64 for float64) in an order that depends on nothing but shapes and the number of
    threads.
    """
    if not _supported(input) or grad_output.numel() == 0:
        return reference.backward(grad_output, input, offset, weight, mask, stride, padding, dilation)
    grads = reference.grads_like(input, offset, weight, mask)
    grad_input, grad_offset, grad_weight, grad_mask = grads
    problem = _problem(input, offset, weight, mask, stride, padding, dilation)
    shape, side, kernels = problem.shape, problem.offset.dtype, library()
    grad_output = grad_output.to(input.dtype).contiguous(memory_format=torch.channels_last)
    by_tap = weight.to(input.dtype).permute(0, 2, 3, 1).contiguous()
    # where gradients have another type or order than the kernels write, they are copied at the end
    to_weight = _in_order(grad_weight.permute(0, 2, 3, 1), input.dtype)
    to_offset = _in_order(grad_offset, side)
    to_mask = None if mask is None else _in_order(grad_mask, side)
    sizes = (TYPES[input.dtype], len(weight), _TILE_BYTES, torch.get_num_threads())
    scratch = torch.empty(kernels.ctnet_deform_conv_scratch(shape, *sizes), dtype=torch.uint8)
    kernels.ctnet_deform_conv_backward(
        shape,
        TYPES[input.dtype],
        pointer(problem.map),
        TYPES[side],
        pointer(problem.offset),
        pointer(problem.mask),
        pointer(by_tap),
        len(weight),
        pointer(grad_output),
        DeformShape(offset_stride=strides(to_offset), mask_stride=strides(to_offset if to_mask is None else to_mask)),
        pointer(grad_input),
        pointer(to_offset),
        pointer(to_mask),
        pointer(to_weight),
        _TILE_BYTES,
        pointer(scratch),
        torch.get_num_threads(),
    )
    for grad, written in ((grad_offset, to_offset), (grad_mask, to_mask), (grad_weight.permute(0, 2, 3, 1), to_weight)):
        if written is not None and written.data_ptr() != grad.data_ptr():
            grad.copy_(written)
    return grads


def _in_order(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the gradient itself, or unfilled memory without gaps and of the type."""
    right = grad.dtype == dtype and grad.is_contiguous()
    return grad if right else torch.empty(grad.shape, dtype=dtype)
