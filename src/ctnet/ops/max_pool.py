"""Max-pooling in training that stores the position of each largest value in one byte instead of eight.

Where a device has no kernel for it, `ctnet.nn` calls torch's own operator instead.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

torch.library.define("ctnet::max_pool2d", "(Tensor input, int kernel, int stride, int padding) -> (Tensor, Tensor)")
torch.library.define(
    "ctnet::max_pool2d_backward",
    "(Tensor grad_output, Tensor taps, int height, int width, int kernel, int stride, int padding) -> Tensor",
)

_LARGEST_KERNEL = 15  # its 225 taps fit into a byte


def max_pool2d(input: Tensor, kernel: int, stride: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """Return the largest value of each window of (N,C,H,W), and which of its k*k taps that is, row by row, as uint8.

    The same as torch's: of equal values the first wins, and NaN is larger than any number. Both are stored
    channels-last. Differentiable in `input`.

    Raises:
        ValueError: not such a map, or a window that may lie outside of it.
    """
    if input.dim() != 4 or not input.is_floating_point():
        raise ValueError(f"max_pool2d: a floating (N,C,H,W) expected, got {input.dtype} {tuple(input.shape)}")
    if not 1 <= kernel <= _LARGEST_KERNEL or stride < 1 or not 0 <= padding <= kernel // 2:
        raise ValueError(
            f"max_pool2d: kernel 1 to {_LARGEST_KERNEL}, stride from 1, padding up to half the kernel expected, "
            f"got {kernel=} {stride=} {padding=}"
        )
    if min(input.shape[2:]) < 1 or min(_out_size(side, kernel, stride, padding) for side in input.shape[2:]) < 1:
        raise ValueError(f"max_pool2d: no window of {kernel} fits into {tuple(input.shape)} with {padding=}")
    results: tuple[Tensor, Tensor] = torch.ops.ctnet.max_pool2d(input, kernel, stride, padding)
    return results


def _out_size(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


def _corners(sides: tuple[int, int], stride: int, padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the map rows (Ho,1) and columns (Wo) at which windows begin; they may be negative."""
    rows, columns = (torch.arange(side, device=device) * stride - padding for side in sides)
    return rows[:, None], columns


def forward(input: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return values and taps by the reference."""
    if input.numel() == 0:  # torch pools no map without channels
        return output_like(input, kernel, stride, padding)
    output, cells = F.max_pool2d(input, kernel, stride, padding, return_indices=True)
    top, left = _corners((output.shape[2], output.shape[3]), stride, padding, input.device)
    width = input.shape[3]
    taps = (cells // width - top) * kernel + (cells % width - left)
    last = torch.channels_last
    return output.contiguous(memory_format=last), taps.to(torch.uint8).contiguous(memory_format=last)


def backward(
    grad_output: Tensor, taps: Tensor, height: int, width: int, kernel: int, stride: int, padding: int
) -> Tensor:
    """Return the gradient of the map by the reference; sums are taken in float32, or float64 of float64."""
    images, channels, *sides = taps.shape
    top, left = _corners((sides[0], sides[1]), stride, padding, taps.device)
    at = taps.to(torch.int64)
    cells = (top + at // kernel) * width + (left + at % kernel)
    wide = torch.promote_types(grad_output.dtype, torch.float32)
    sums = torch.zeros(images, channels, height * width, dtype=wide, device=taps.device)
    sums.scatter_add_(2, cells.flatten(2), grad_output.to(wide).flatten(2))
    grad = sums.reshape(images, channels, height, width).to(grad_output.dtype)
    return grad.contiguous(memory_format=torch.channels_last)


torch.library.impl("ctnet::max_pool2d", "default", forward)
torch.library.impl("ctnet::max_pool2d_backward", "default", backward)


def output_like(input: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return unfilled values and taps."""
    sides = (_out_size(side, kernel, stride, padding) for side in input.shape[2:])
    shape = (*input.shape[:2], *sides)
    values = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
    return values, torch.empty_like(values, dtype=torch.uint8)


def grad_like(grad_output: Tensor, height: int, width: int) -> Tensor:
    """Return the unfilled gradient of the map."""
    shape = (*grad_output.shape[:2], height, width)
    return torch.empty(shape, dtype=grad_output.dtype, device=grad_output.device, memory_format=torch.channels_last)


@torch.library.register_fake("ctnet::max_pool2d")
def _forward_shape(input, kernel, stride, padding):  # type: ignore[no-untyped-def]
    return output_like(input, kernel, stride, padding)


@torch.library.register_fake("ctnet::max_pool2d_backward")
def _backward_shape(grad_output, taps, height, width, kernel, stride, padding):  # type: ignore[no-untyped-def]
    return grad_like(grad_output, height, width)


def _save_for_backward(ctx, inputs, output):  # type: ignore[no-untyped-def]
    input, *ctx.window = inputs
    ctx.sides = input.shape[2:]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _gradients(ctx, grad_output, _):  # type: ignore[no-untyped-def]
    (taps,) = ctx.saved_tensors
    grad = torch.ops.ctnet.max_pool2d_backward(grad_output, taps, *ctx.sides, *ctx.window)
    return grad, None, None, None


torch.library.register_autograd("ctnet::max_pool2d", _gradients, setup_context=_save_for_backward)
