"""Gradients of the deformable convolution in Triton: two kernels, neither of which stores columns.

The map's gradient is added up by atomic additions, so its last bits depend on their order; a program that asks torch
for deterministic algorithms gets the reference.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctnet.devices.cuda.sampling import BUSY, arguments, blend, block, corners, gather, supported
from ctnet.ops import deform_conv_reference as reference

_ROWS = 64


def backward(
    grad_output: Tensor, input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, stride: list[int],
    padding: list[int], dilation: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return what the reference returns."""
    if not supported(input, offset, weight, mask) or torch.are_deterministic_algorithms_enabled():
        return reference.backward(grad_output, input, offset, weight, mask, stride, padding, dilation)
    grad_input, grad_offset, grad_weight, grad_mask = reference.grads_like(input, offset, weight, mask)
    given = arguments(input, offset, weight, mask, stride, padding, dilation)
    grad = grad_output.to(input.dtype).contiguous(memory_format=torch.channels_last)
    sums = grad_input if input.dtype == torch.float32 else torch.empty_like(grad_input, dtype=torch.float32)
    sums.zero_()
    with torch.cuda.device_of(input):
        _launch_map(given, grad, sums, grad_offset, None if mask is None else grad_mask)
        grad_weight.copy_(_launch_weight(given, grad))
    if sums is not grad_input:
        grad_input.copy_(sums)
    return grad_input, grad_offset, grad_weight, grad_mask


def _launch_map(
    given: dict[str, Any], grad: Tensor, sums: Tensor, grad_offset: Tensor, grad_mask: Tensor | None
) -> None:
    deform_groups = grad_offset.shape[1] // (2 * given["TAPS"])
    grid = (triton.cdiv(given["cells"], _ROWS) * given["TAPS"] * deform_groups,)
    _deform_map_and_sides[grid](
        grad=grad, grad_map=sums, grad_offset=grad_offset, grad_mask=grad_mask, **given,
        DEFORM_GROUPS=deform_groups, ROWS=_ROWS, COLUMNS=block(given["group_filters"], 16, 64),
        DEPTH=block(min(given["group_channels"], given["deform_channels"]), 16, 32), num_warps=8,
    )  # fmt: skip


def _launch_weight(given: dict[str, Any], grad: Tensor) -> Tensor:
    """Return the weight's gradient (O,C/groups,kh,kw) in float32.

    Programs share out the cells, and their sums are added in a fixed order afterwards.
    """
    columns = block(given["group_filters"], 16, 64)
    depth = block(given["group_channels"], 16, 128 // grad.element_size())
    filter_tiles = triton.cdiv(given["group_filters"], columns)
    channel_tiles = triton.cdiv(given["group_channels"], depth)
    tiles = filter_tiles * channel_tiles * given["TAPS"] * given["GROUPS"]
    shares = max(1, min(triton.cdiv(given["cells"], _ROWS), triton.cdiv(2 * BUSY, tiles)))
    filters, group_channels, kernel_h, kernel_w = given["weight"].shape
    partial = torch.empty(
        (shares, filters, kernel_h, kernel_w, group_channels), dtype=torch.float32, device=grad.device
    )
    _deform_weight[(tiles * shares,)](
        grad=grad, partial=partial, shares=shares, **given,
        ROWS=_ROWS, COLUMNS=columns, DEPTH=depth, num_warps=4,
    )  # fmt: skip
    return partial.sum(0).permute(0, 3, 1, 2)


@triton.jit
def _deform_map_and_sides(
    grad, map, offset, mask, weight, grad_map, grad_offset, grad_mask, cells, out_h, out_w, height, width,
    group_channels, group_filters, deform_channels,
    offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w, GROUPS: tl.constexpr,
    TAPS: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr, PADDING_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PRECISION: tl.constexpr, DEFORM_GROUPS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of offset and mask for ROWS cells, a tap and a deformable group; add to the map's."""
    task = tl.program_id(0) % (TAPS * DEFORM_GROUPS)
    deform_group, tap = task // TAPS, task % TAPS
    cell = tl.program_id(0) // (TAPS * DEFORM_GROUPS) * ROWS + tl.arange(0, ROWS)
    valid = cell < cells
    pixel, down, right, top, bottom, on_left, on_right, factor = corners(
        offset, mask, cell, valid, deform_group, tap, out_h, out_w, height, width,
        offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w,
        TAPS, KERNEL_W, STRIDE_H, STRIDE_W, PADDING_H, PADDING_W, DILATION_H, DILATION_W,
    )  # fmt: skip
    by_y, by_x = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
    by_factor = tl.zeros([ROWS], tl.float32)
    first, end = deform_group * deform_channels, (deform_group + 1) * deform_channels
    for group in range(first // group_channels, (end - 1) // group_channels + 1):
        low = tl.maximum(first, group * group_channels)
        high = tl.minimum(end, (group + 1) * group_channels)
        for start in range(low, high, DEPTH):
            channel = start + tl.arange(0, DEPTH)
            has_channel = channel < high
            columns = _column_gradients(
                grad, weight, cell, valid, channel, has_channel, group, tap, group_channels, group_filters,
                GROUPS, TAPS, PRECISION, ROWS, COLUMNS, DEPTH,
            )  # fmt: skip
            a, b, c, d = gather(
                map, pixel, top, bottom, on_left, on_right, channel, has_channel, width, GROUPS * group_channels
            )
            by_factor += tl.sum(columns * blend(a, b, c, d, down, right), 1)
            columns *= factor[:, None]
            by_y += tl.sum(columns * ((c - a) * (1 - right)[:, None] + (d - b) * right[:, None]), 1)
            by_x += tl.sum(columns * ((b - a) * (1 - down)[:, None] + (d - c) * down[:, None]), 1)
            _scatter(
                grad_map, columns, pixel, down, right, top, bottom, on_left, on_right, channel, has_channel, width,
                GROUPS * group_channels,
            )  # fmt: skip
    inside = top | bottom  # of other samples the products are of zeros with what may be no number
    by_y, by_x, by_factor = tl.where(inside, by_y, 0.0), tl.where(inside, by_x, 0.0), tl.where(inside, by_factor, 0.0)
    image, place = (cell // (out_h * out_w)).to(tl.int64), cell % (out_h * out_w)
    side = (image * DEFORM_GROUPS + deform_group) * TAPS + tap
    at = grad_offset + side * 2 * out_h * out_w + place
    tl.store(at, by_y.to(grad_offset.dtype.element_ty), mask=valid)
    tl.store(at + out_h * out_w, by_x.to(grad_offset.dtype.element_ty), mask=valid)
    if grad_mask is not None:
        tl.store(grad_mask + side * out_h * out_w + place, by_factor.to(grad_mask.dtype.element_ty), mask=valid)


@triton.jit
def _column_gradients(
    grad, weight, cell, valid, channel, has_channel, group, tap, group_channels, group_filters,
    GROUPS: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Return the gradient of a tap's columns, (ROWS,DEPTH): the output's gradient times the weight."""
    total = tl.zeros([ROWS, DEPTH], tl.float32)
    for start in range(0, group_filters, COLUMNS):
        local = start + tl.arange(0, COLUMNS)
        has_filter = local < group_filters
        filter = group * group_filters + local
        at = grad + cell.to(tl.int64)[:, None] * (GROUPS * group_filters) + filter[None, :]
        rows = tl.load(at, mask=valid[:, None] & has_filter[None, :], other=0.0)
        at = weight + (filter[:, None] * TAPS + tap) * group_channels + (channel - group * group_channels)[None, :]
        matrix = tl.load(at, mask=has_filter[:, None] & has_channel[None, :], other=0.0)
        total = tl.dot(rows, matrix, total, input_precision=PRECISION)
    return total


@triton.jit
def _scatter(
    grad_map, columns, pixel, down, right, has_top, has_bottom, has_left, has_right, channel, has_channel, width,
    channels,
):  # fmt: skip
    """Add the gradients (R,D) of samples to those of the four corners they were blended from."""
    at = grad_map + pixel[:, None] * channels + channel[None, :]
    below = grad_map + (pixel + width)[:, None] * channels + channel[None, :]
    has = has_channel[None, :]
    upper, lower = columns * (1 - down)[:, None], columns * down[:, None]
    to_left, to_right = (1 - right)[:, None], right[:, None]
    tl.atomic_add(at, upper * to_left, mask=(has_top & has_left)[:, None] & has, sem="relaxed")
    tl.atomic_add(at + channels, upper * to_right, mask=(has_top & has_right)[:, None] & has, sem="relaxed")
    tl.atomic_add(below, lower * to_left, mask=(has_bottom & has_left)[:, None] & has, sem="relaxed")
    tl.atomic_add(below + channels, lower * to_right, mask=(has_bottom & has_right)[:, None] & has, sem="relaxed")


@triton.jit
def _deform_weight(
    grad, map, offset, mask, weight, partial, shares, cells, out_h, out_w, height, width,
    group_channels, group_filters, deform_channels,
    offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w, GROUPS: tl.constexpr,
    TAPS: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr, PADDING_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute one share of the weight's gradient: COLUMNS filters by DEPTH channels at a tap, summed over its cells."""
    filter_tiles, channel_tiles = tl.cdiv(group_filters, COLUMNS), tl.cdiv(group_channels, DEPTH)
    task = tl.program_id(0)
    tap, task = task % TAPS, task // TAPS
    channel_tile, task = task % channel_tiles, task // channel_tiles
    filter_tile, task = task % filter_tiles, task // filter_tiles
    group, share = task % GROUPS, task // GROUPS
    local = filter_tile * COLUMNS + tl.arange(0, COLUMNS)
    has_filter = local < group_filters
    filter = group * group_filters + local
    first = group * group_channels + channel_tile * DEPTH
    end = tl.minimum(first + DEPTH, (group + 1) * group_channels)
    channel = first + tl.arange(0, DEPTH)
    total = tl.zeros([COLUMNS, DEPTH], tl.float32)
    for tile in range(share, tl.cdiv(cells, ROWS), shares):
        cell = tile * ROWS + tl.arange(0, ROWS)
        valid = cell < cells
        at = grad + cell.to(tl.int64)[:, None] * (GROUPS * group_filters) + filter[None, :]
        rows = tl.load(at, mask=valid[:, None] & has_filter[None, :], other=0.0)
        for deform_group in range(first // deform_channels, (end - 1) // deform_channels + 1):
            pixel, down, right, top, bottom, on_left, on_right, factor = corners(
                offset, mask, cell, valid, deform_group, tap, out_h, out_w, height, width,
                offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w,
                TAPS, KERNEL_W, STRIDE_H, STRIDE_W, PADDING_H, PADDING_W, DILATION_H, DILATION_W,
            )  # fmt: skip
            here = (channel < end) & (channel // deform_channels == deform_group)
            a, b, c, d = gather(
                map, pixel, top, bottom, on_left, on_right, channel, here, width, GROUPS * group_channels
            )
            columns = tl.where(here[None, :], blend(a, b, c, d, down, right) * factor[:, None], 0.0)
            total = tl.dot(tl.trans(rows), columns.to(rows.dtype), total, input_precision=PRECISION)
    at = partial + ((share.to(tl.int64) * GROUPS * group_filters + filter)[:, None] * TAPS + tap) * group_channels
    at += (channel - group * group_channels)[None, :]
    tl.store(at, total, mask=has_filter[:, None] & (channel < end)[None, :])
