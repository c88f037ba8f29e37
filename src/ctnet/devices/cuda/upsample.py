"""Depthwise transposed convolution in Triton: every kernel gathers, so all sums have a fixed order.

Shape letters: R pixels of a tile, D channels of a tile. Maps are stored channels-last, the weight as (k,k,C).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctnet.devices.cuda.sampling import BUSY, TYPES, block
from ctnet.ops import upsample as reference

_ROWS = 32
_LARGEST = 2**31 - 2**16  # pixels, which are counted in 32 bits


def forward(input: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Return what the reference returns."""
    output = reference.output_like(input, weight, stride, padding)
    if not _supported(input, output):
        return reference.forward(input, weight, stride, padding)
    pixels = output.shape[0] * output.shape[2] * output.shape[3]
    with torch.cuda.device_of(input):
        _upsample[_grid(pixels, input)](
            _stored(input), _by_tap(weight), output, pixels, **_sizes(input, output, weight, stride, padding)
        )
    return output


def backward(grad_output: Tensor, input: Tensor, weight: Tensor, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Return what the reference returns."""
    if not _supported(input, grad_output):
        return reference.backward(grad_output, input, weight, stride, padding)
    grad = _stored(grad_output.to(input.dtype))
    grad_input = torch.empty_like(input, memory_format=torch.channels_last)
    pixels = input.shape[0] * input.shape[2] * input.shape[3]
    sizes = _sizes(input, grad, weight, stride, padding)
    shares = max(1, min(triton.cdiv(pixels, _ROWS), BUSY // sizes["KERNEL"]))
    partial = torch.empty((shares, *weight.shape[2:], weight.shape[0]), dtype=torch.float32, device=input.device)
    with torch.cuda.device_of(input):
        _upsample_map[_grid(pixels, input)](grad, _by_tap(weight), grad_input, pixels, **sizes)
        grid = (shares, weight[0].numel(), triton.cdiv(input.shape[1], sizes["DEPTH"]))
        _upsample_weight[grid](_stored(input), grad, partial, pixels, shares, **sizes)
    return grad_input, partial.sum(0).permute(2, 0, 1).unsqueeze(1).to(weight.dtype).contiguous()


def _supported(small: Tensor, large: Tensor) -> bool:
    return small.dtype in TYPES and small.numel() > 0 and large[:, 0].numel() <= _LARGEST


def _stored(map: Tensor) -> Tensor:
    return map.contiguous(memory_format=torch.channels_last)


def _by_tap(weight: Tensor) -> Tensor:
    return weight[:, 0].permute(1, 2, 0).contiguous()


def _sizes(small: Tensor, large: Tensor, weight: Tensor, stride: int, padding: int) -> dict[str, Any]:
    """Return what the three kernels are called with; `small` is the map before, `large` the one after."""
    return {
        "height": small.shape[2], "width": small.shape[3], "large_h": large.shape[2], "large_w": large.shape[3],
        "channels": small.shape[1], "KERNEL": weight.shape[-1], "STRIDE": stride, "PADDING": padding,
        "ROWS": _ROWS, "DEPTH": _depth(small), "num_warps": 4, "enable_fp_fusion": True,
    }  # fmt: skip


def _depth(map: Tensor) -> int:
    return block(map.shape[1], 16, 64)


def _grid(pixels: int, map: Tensor) -> tuple[int, int]:
    return triton.cdiv(pixels, _ROWS), triton.cdiv(map.shape[1], _depth(map))


@triton.jit
def _upsample(
    small, weight, large, pixels, height, width, large_h, large_w, channels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute ROWS pixels of the large map by DEPTH channels: each meets every STRIDE-th tap a side."""
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    exists, has_channel = pixel < pixels, channel < channels
    image = pixel // (large_h * large_w)
    y, x = pixel // large_w % large_h + PADDING, pixel % large_w + PADDING
    total = tl.zeros([ROWS, DEPTH], tl.float32)
    for step_y in tl.static_range((KERNEL + STRIDE - 1) // STRIDE):
        tap_y, row = y % STRIDE + step_y * STRIDE, y // STRIDE - step_y
        for step_x in tl.static_range((KERNEL + STRIDE - 1) // STRIDE):
            tap_x, column = x % STRIDE + step_x * STRIDE, x // STRIDE - step_x
            there = exists & (tap_y < KERNEL) & (row >= 0) & (row < height)
            there = there & (tap_x < KERNEL) & (column >= 0) & (column < width)
            use = there[:, None] & has_channel[None, :]
            at = ((image * height + row) * width + column).to(tl.int64)[:, None] * channels + channel[None, :]
            value = tl.load(small + at, mask=use, other=0.0).to(tl.float32)
            at = (tap_y * KERNEL + tap_x)[:, None] * channels + channel[None, :]
            total += value * tl.load(weight + at, mask=use, other=0.0).to(tl.float32)
    at = large + pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(at, total.to(large.dtype.element_ty), mask=exists[:, None] & has_channel[None, :])


@triton.jit
def _upsample_map(
    grad, weight, grad_small, pixels, height, width, large_h, large_w, channels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of ROWS pixels of the small map by DEPTH channels, over all taps."""
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    exists, has_channel = pixel < pixels, channel < channels
    total = tl.zeros([ROWS, DEPTH], tl.float32)
    for tap in range(KERNEL * KERNEL):
        value = _large_at(
            grad, pixel, exists, channel, has_channel, tap, height, width, large_h, large_w, channels,
            KERNEL, STRIDE, PADDING,
        )  # fmt: skip
        factor = tl.load(weight + tap * channels + channel, mask=has_channel, other=0.0).to(tl.float32)
        total += value * factor[None, :]
    at = grad_small + pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    tl.store(at, total.to(grad_small.dtype.element_ty), mask=exists[:, None] & has_channel[None, :])


@triton.jit
def _upsample_weight(
    small, grad, partial, pixels, shares, height, width, large_h, large_w, channels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute one share of the weight's gradient: a tap by DEPTH channels, summed over the share's pixels."""
    share, tap = tl.program_id(0), tl.program_id(1)
    channel = tl.program_id(2) * DEPTH + tl.arange(0, DEPTH)
    has_channel = channel < channels
    total = tl.zeros([ROWS, DEPTH], tl.float32)
    for tile in range(share, tl.cdiv(pixels, ROWS), shares):
        pixel = tile * ROWS + tl.arange(0, ROWS)
        exists = pixel < pixels
        at = small + pixel.to(tl.int64)[:, None] * channels + channel[None, :]
        value = tl.load(at, mask=exists[:, None] & has_channel[None, :], other=0.0).to(tl.float32)
        total += value * _large_at(
            grad, pixel, exists, channel, has_channel, tap, height, width, large_h, large_w, channels,
            KERNEL, STRIDE, PADDING,
        )  # fmt: skip
    at = partial + (share * (KERNEL * KERNEL) + tap) * channels + channel
    tl.store(at, tl.sum(total, 0), mask=has_channel)


@triton.jit
def _large_at(
    large, pixel, exists, channel, has_channel, tap, height, width, large_h, large_w, channels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Return the large map where a tap puts pixels of the small one, (R,D) float32."""
    row = pixel // width % height * STRIDE - PADDING + tap // KERNEL
    column = pixel % width * STRIDE - PADDING + tap % KERNEL
    there = exists & (row >= 0) & (row < large_h) & (column >= 0) & (column < large_w)
    at = ((pixel // (height * width) * large_h + row) * large_w + column).to(tl.int64)
    at = large + at[:, None] * channels + channel[None, :]
    return tl.load(at, mask=there[:, None] & has_channel[None, :], other=0.0).to(tl.float32)
