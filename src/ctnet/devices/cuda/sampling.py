"""How the deformable kernels read the map: bilinear samples of a tile of output cells and channels, in registers.

Shape letters: R cells of a tile, D channels of a tile. The map is stored channels-last, so a corner of a cell is one
run of memory.
"""

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

BUSY = 264
"""programs that fill a large GPU twice (an H200 has 132 multiprocessors); fewer make a kernel take smaller tiles"""
TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""of maps and weights; sums are float32 for all of them"""
# Cells, weights and offsets of an image are counted in 32 bits, a tile beyond the end included.
_LARGEST = 2**31 - 2**16


def supported(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None) -> bool:
    """Return whether the kernels take this call; float64, empty and huge inputs go to the reference."""
    if input.dtype not in TYPES or min(input.numel(), offset.numel(), weight.numel()) == 0:
        return False
    sides = (offset,) if mask is None else (offset, mask)
    return max(weight.numel(), offset[:, 0].numel(), *(_span(side) for side in sides)) <= _LARGEST


def arguments(
    input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int],
) -> dict[str, Any]:  # fmt: skip
    """Return what every deformable kernel is called with, by name.

    Map and weight are copied where they are not channels-last: gathering single numbers would cost more.
    """
    group_channels, kernel = weight.shape[1], (weight.shape[2], weight.shape[3])
    groups = input.shape[1] // group_channels
    taps = kernel[0] * kernel[1]
    return {
        "map": input.contiguous(memory_format=torch.channels_last),
        "offset": offset,
        "mask": mask,
        "weight": weight.contiguous(memory_format=torch.channels_last),
        "cells": offset.shape[0] * offset.shape[2] * offset.shape[3],
        "out_h": offset.shape[2],
        "out_w": offset.shape[3],
        "height": input.shape[2],
        "width": input.shape[3],
        "group_channels": group_channels,
        "group_filters": weight.shape[0] // groups,
        "deform_channels": input.shape[1] * 2 * taps // offset.shape[1],
        **_strides("offset", offset),
        **_strides("mask", mask),
        "GROUPS": groups,
        "TAPS": taps,
        "KERNEL_W": kernel[1],
        **{f"STRIDE_{axis}": value for axis, value in zip("HW", stride, strict=True)},
        **{f"PADDING_{axis}": value for axis, value in zip("HW", padding, strict=True)},
        **{f"DILATION_{axis}": value for axis, value in zip("HW", dilation, strict=True)},
        "PRECISION": _precision(),
        "num_stages": 2,  # leaves room for the tiles in any GPU's shared memory
        "enable_fp_fusion": True,
    }


def _span(side: Tensor) -> int:
    """Return how many elements lie between the first and the last of an image."""
    return sum((size - 1) * stride for size, stride in zip(side.shape[1:], side.stride()[1:], strict=True))


def _strides(name: str, tensor: Tensor | None) -> dict[str, int]:
    strides = (0, 0, 0, 0) if tensor is None else tensor.stride()
    return {f"{name}_{axis}": value for axis, value in zip("nchw", strides, strict=True)}


def _precision() -> str:
    """Return how float32 is multiplied: by torch's switch for convolutions, which this is one of."""
    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":  # libraries of the vendor obey it by themselves
        return "ieee"
    conv = getattr(torch.backends.cudnn, "conv", None)  # the switch's newer name, which may disagree with the older
    allowed = torch.backends.cudnn.allow_tf32 if conv is None else conv.fp32_precision == "tf32"
    return "tf32" if allowed else "ieee"


def block(count: int, least: int, most: int) -> int:
    """Return the power of two that holds `count`, within bounds; a tensor core multiplies nothing below 16."""
    power: int = triton.next_power_of_2(count)
    return max(least, min(most, power))


@triton.jit
def corners(
    offset, mask, cell, valid, deform_group, tap, out_h, out_w, height, width,
    offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w,
    TAPS: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr, PADDING_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
):  # fmt: skip
    """Return (pixel, down, right, has_top, has_bottom, has_left, has_right, factor), all (R,), of one tap.

    `pixel` is the index of the top-left corner among all images' pixels, `down` and `right` are the sample's distance
    from it. Corners outside the map, and all four of a sample outside or not finite, are absent; such a sample's factor
    is 0, whatever the mask has there.
    """
    image = (cell // (out_h * out_w)).to(tl.int64)
    row, column = (cell // out_w) % out_h, cell % out_w
    channel = deform_group * TAPS + tap
    at = offset + image * offset_n + row * offset_h + column * offset_w + 2 * channel * offset_c
    y = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    x = tl.load(at + offset_c, mask=valid, other=0.0).to(tl.float32)
    y += (row * STRIDE_H - PADDING_H + (tap // KERNEL_W) * DILATION_H).to(tl.float32)
    x += (column * STRIDE_W - PADDING_W + (tap % KERNEL_W) * DILATION_W).to(tl.float32)
    inside = valid & (y > -1) & (y < height) & (x > -1) & (x < width)
    y, x = tl.where(inside, y, 0.0), tl.where(inside, x, 0.0)
    floor_y, floor_x = tl.floor(y), tl.floor(x)
    top, left = floor_y.to(tl.int32), floor_x.to(tl.int32)
    factor = tl.full(y.shape, 1.0, tl.float32)
    if mask is not None:
        at = mask + image * mask_n + row * mask_h + column * mask_w + channel * mask_c
        factor = tl.where(inside, tl.load(at, mask=valid, other=0.0).to(tl.float32), 0.0)
    return (
        (image * height + top) * width + left,
        y - floor_y,
        x - floor_x,
        inside & (top >= 0),
        inside & (top < height - 1),
        left >= 0,
        left < width - 1,
        factor,
    )


@triton.jit
def gather(map, pixel, has_top, has_bottom, has_left, has_right, channel, has_channel, width, channels):
    """Return the map at the four corners (top-left, top-right, bottom-left, bottom-right), each (R,D) float32."""
    at = map + pixel[:, None] * channels + channel[None, :]
    below = map + (pixel + width)[:, None] * channels + channel[None, :]
    has = has_channel[None, :]
    return (
        tl.load(at, mask=(has_top & has_left)[:, None] & has, other=0.0).to(tl.float32),
        tl.load(at + channels, mask=(has_top & has_right)[:, None] & has, other=0.0).to(tl.float32),
        tl.load(below, mask=(has_bottom & has_left)[:, None] & has, other=0.0).to(tl.float32),
        tl.load(below + channels, mask=(has_bottom & has_right)[:, None] & has, other=0.0).to(tl.float32),
    )


@triton.jit
def blend(top_left, top_right, bottom_left, bottom_right, down, right):
    """Return the samples (R,D) between four corners."""
    down, right = down[:, None], right[:, None]
    upper = top_left * (1 - right) + top_right * right
    lower = bottom_left * (1 - right) + bottom_right * right
    return upper * (1 - down) + lower * down
