"""Deformable convolution in Triton: columns are sampled in registers and multiplied there, tile by tile."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctnet.devices.cuda.sampling import BUSY, arguments, blend, block, corners, gather, supported
from ctnet.ops import deform_conv_reference as reference


def forward(
    input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, stride: list[int],
    padding: list[int], dilation: list[int],
) -> Tensor:  # fmt: skip
    """Return what the reference returns."""
    if not supported(input, offset, weight, mask):
        return reference.forward(input, offset, weight, bias, mask, stride, padding, dilation)
    output = reference.output_like(input, offset, weight)
    given = arguments(input, offset, weight, mask, stride, padding, dilation)
    tile = _tile(given["cells"], given["group_filters"], given["GROUPS"])
    filter_tiles = triton.cdiv(given["group_filters"], tile["COLUMNS"])
    grid = (triton.cdiv(given["cells"], tile["ROWS"]) * filter_tiles * given["GROUPS"],)
    depth = block(min(weight.shape[1], given["deform_channels"]), 16, 128 // input.element_size())
    warps = 8 if tile["ROWS"] * tile["COLUMNS"] > 64 * 64 else 4
    with torch.cuda.device_of(input):
        _deform_forward[grid](bias=bias, output=output, **given, **tile, DEPTH=depth, num_warps=warps)
    return output


def _tile(cells: int, filters: int, groups: int) -> dict[str, int]:
    """Return cells and filters of a tile.

    As many filters as there are, for each tile of them samples its cells anew, unless the GPU would stand idle.
    """
    rows, columns = 64, block(filters, 16, 128)

    def programs() -> int:
        return -(-cells // rows) * -(-filters // columns) * groups

    while columns > 64 and programs() < BUSY:
        columns //= 2
    while rows > 16 and programs() < BUSY:
        rows //= 2
    return {"ROWS": rows, "COLUMNS": columns}


@triton.jit
def _deform_forward(
    map, offset, mask, weight, bias, output, cells, out_h, out_w, height, width,
    group_channels, group_filters, deform_channels,
    offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w, GROUPS: tl.constexpr,
    TAPS: tl.constexpr, KERNEL_W: tl.constexpr, STRIDE_H: tl.constexpr, STRIDE_W: tl.constexpr,
    PADDING_H: tl.constexpr, PADDING_W: tl.constexpr, DILATION_H: tl.constexpr, DILATION_W: tl.constexpr,
    PRECISION: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute a tile of output: ROWS cells by COLUMNS filters of one group."""
    filter_tiles = tl.cdiv(group_filters, COLUMNS)
    # tiles of the same cells are neighbours in time, so that the map is read once into the cache
    tile = tl.program_id(0) % (filter_tiles * GROUPS)
    cell = tl.program_id(0) // (filter_tiles * GROUPS) * ROWS + tl.arange(0, ROWS)
    valid = cell < cells
    group = tile // filter_tiles
    local = tile % filter_tiles * COLUMNS + tl.arange(0, COLUMNS)
    has_filter = local < group_filters
    filter = group * group_filters + local
    first, end = group * group_channels, (group + 1) * group_channels
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for deform_group in range(first // deform_channels, (end - 1) // deform_channels + 1):
        low = tl.maximum(first, deform_group * deform_channels)
        high = tl.minimum(end, (deform_group + 1) * deform_channels)
        for tap in range(TAPS):
            pixel, down, right, top, bottom, on_left, on_right, factor = corners(
                offset, mask, cell, valid, deform_group, tap, out_h, out_w, height, width,
                offset_n, offset_c, offset_h, offset_w, mask_n, mask_c, mask_h, mask_w,
                TAPS, KERNEL_W, STRIDE_H, STRIDE_W, PADDING_H, PADDING_W, DILATION_H, DILATION_W,
            )  # fmt: skip
            for start in range(low, high, DEPTH):
                channel = start + tl.arange(0, DEPTH)
                has_channel = channel < high
                a, b, c, d = gather(
                    map, pixel, top, bottom, on_left, on_right, channel, has_channel, width, GROUPS * group_channels
                )
                columns = blend(a, b, c, d, down, right) * factor[:, None]
                at = weight + (filter[None, :] * TAPS + tap) * group_channels + (channel - first)[:, None]
                matrix = tl.load(at, mask=has_channel[:, None] & has_filter[None, :], other=0.0)
                total = tl.dot(columns.to(matrix.dtype), matrix, total, input_precision=PRECISION)
    if bias is not None:
        total += tl.load(bias + filter, mask=has_filter, other=0.0).to(tl.float32)[None, :]
    at = output + cell.to(tl.int64)[:, None] * (GROUPS * group_filters) + filter[None, :]
    tl.store(at, total.to(output.dtype.element_ty), mask=valid[:, None] & has_filter[None, :])
