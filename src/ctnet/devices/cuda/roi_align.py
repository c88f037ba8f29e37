"""RoIAlign in Triton: a program has a row of a box's bins by a tile of channels.

The maps' gradients are added up by atomic additions, so their last bits depend on the order; a program that asks torch
for deterministic algorithms gets the reference. Shape letters: R box, P side of the result, D channels of a tile.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ctnet.devices.cuda.sampling import TYPES, block
from ctnet.ops import roi_align_reference as reference


def forward(
    levels: list[Tensor], rois: Tensor, batch_index: Tensor, level: Tensor, strides: list[float], output_size: int,
    sampling_ratio: int, aligned: bool,
) -> Tensor:  # fmt: skip
    """Return what the reference returns."""
    map, given = levels[0], (strides, output_size, sampling_ratio, aligned)
    if map.dtype not in TYPES or min(map.numel(), len(rois)) == 0:
        return reference.forward(levels, rois, batch_index, level, *given)
    boxes = reference.geometry(rois.float(), batch_index, level, map.shape[0], *given)
    output = reference.output_like(levels, rois, output_size).zero_()  # boxes on no level
    with torch.cuda.device_of(map):
        for index, map in enumerate(levels):
            _roi_pool[_grid(output)](
                map.contiguous(memory_format=torch.channels_last), boxes, batch_index.contiguous(), level.contiguous(),
                output, index, *map.shape[2:], map.shape[1], **_sizes(output),
            )  # fmt: skip
    return output


def backward(
    grad_output: Tensor, rois: Tensor, batch_index: Tensor, level: Tensor, images: int, sides: list[int],
    strides: list[float], sampling_ratio: int, aligned: bool,
) -> list[Tensor]:  # fmt: skip
    """Return what the reference returns."""
    dtype, size = grad_output.dtype, grad_output.shape[2]
    if dtype not in TYPES or min(grad_output.numel(), images) == 0 or torch.are_deterministic_algorithms_enabled():
        return reference.backward(
            grad_output, rois, batch_index, level, images, sides, strides, sampling_ratio, aligned
        )
    boxes = reference.geometry(rois.float(), batch_index, level, images, strides, size, sampling_ratio, aligned)
    sums = [grad.zero_() for grad in reference.grads_like(grad_output, images, sides, torch.float32)]
    grad = grad_output.contiguous()
    with torch.cuda.device_of(grad):
        for index, map in enumerate(sums):
            _roi_spread[_grid(grad)](
                map, boxes, batch_index.contiguous(), level.contiguous(),
                grad, index, *map.shape[2:], map.shape[1], **_sizes(grad),
            )  # fmt: skip
    return [map.to(dtype) for map in sums]


def _sizes(bins: Tensor) -> dict[str, Any]:
    size = bins.shape[2]
    return {
        "SIZE": size, "BINS": block(size, 1, 1 << 20), "DEPTH": _depth(bins), "num_warps": 4,
        "enable_fp_fusion": False,  # positions are rounded step by step, as the reference rounds them
    }  # fmt: skip


def _depth(bins: Tensor) -> int:
    return block(bins.shape[1], 16, 64)


def _grid(bins: Tensor) -> tuple[int, int]:
    return bins.shape[0] * bins.shape[2], triton.cdiv(bins.shape[1], _depth(bins))


@triton.jit
def _roi_pool(
    map, boxes, image, level, bins, index, height, width, channels,
    SIZE: tl.constexpr, BINS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Compute a row of bins of a box by DEPTH channels, if the box is on this level."""
    box, row = tl.program_id(0) // SIZE, tl.program_id(0) % SIZE
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    bin = tl.arange(0, BINS)
    has = (bin < SIZE)[:, None] & (channel < channels)[None, :]
    if tl.load(level + box) == index:
        base_y, side_y, samples_y = _row(boxes, box, 0, row)
        base_x, side_x, samples_x = _row(boxes, box, 1, bin)
        first_y, last_y = _reach(base_y, side_y, samples_y, height)
        first_x, last_x = _reach(base_x, side_x, samples_x, width)
        origin = tl.load(image + box) * height
        total = tl.zeros([BINS, DEPTH], tl.float32)
        for i in range(first_y, last_y):
            top, bottom, down, inside_y = _corner(base_y, side_y, samples_y, i, height)
            if inside_y:
                for j in range(0, tl.max(last_x - first_x, 0)):
                    left, end, right, inside_x = _corner(base_x, side_x, samples_x, first_x + j, width)
                    use = (inside_x & (first_x + j < last_x))[:, None] & has
                    above, below = (origin + top) * width, (origin + bottom) * width
                    total += (1 - down) * (1 - right)[:, None] * _cells(map, above + left, channel, channels, use)
                    total += (1 - down) * right[:, None] * _cells(map, above + end, channel, channels, use)
                    total += down * (1 - right)[:, None] * _cells(map, below + left, channel, channels, use)
                    total += down * right[:, None] * _cells(map, below + end, channel, channels, use)
        total = total / tl.maximum(samples_y * samples_x, 1.0)
        at = bins + _bins(box, row, bin, channel, channels, SIZE)
        tl.store(at, total.to(bins.dtype.element_ty), mask=has)


@triton.jit
def _roi_spread(
    sums, boxes, image, level, bins, index, height, width, channels,
    SIZE: tl.constexpr, BINS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Add the gradient of a row of bins of a box by DEPTH channels, if the box is on this level."""
    box, row = tl.program_id(0) // SIZE, tl.program_id(0) % SIZE
    channel = tl.program_id(1) * DEPTH + tl.arange(0, DEPTH)
    bin = tl.arange(0, BINS)
    has = (bin < SIZE)[:, None] & (channel < channels)[None, :]
    if tl.load(level + box) == index:
        base_y, side_y, samples_y = _row(boxes, box, 0, row)
        base_x, side_x, samples_x = _row(boxes, box, 1, bin)
        first_y, last_y = _reach(base_y, side_y, samples_y, height)
        first_x, last_x = _reach(base_x, side_x, samples_x, width)
        origin = tl.load(image + box) * height
        grad = tl.load(bins + _bins(box, row, bin, channel, channels, SIZE), mask=has, other=0.0).to(tl.float32)
        grad = grad / tl.maximum(samples_y * samples_x, 1.0)
        for i in range(first_y, last_y):
            top, bottom, down, inside_y = _corner(base_y, side_y, samples_y, i, height)
            if inside_y:
                for j in range(0, tl.max(last_x - first_x, 0)):
                    left, end, right, inside_x = _corner(base_x, side_x, samples_x, first_x + j, width)
                    use = (inside_x & (first_x + j < last_x))[:, None] & has
                    above, below = (origin + top) * width, (origin + bottom) * width
                    _add(sums, above + left, channel, channels, (1 - down) * (1 - right)[:, None] * grad, use)
                    _add(sums, above + end, channel, channels, (1 - down) * right[:, None] * grad, use)
                    _add(sums, below + left, channel, channels, down * (1 - right)[:, None] * grad, use)
                    _add(sums, below + end, channel, channels, down * right[:, None] * grad, use)


@triton.jit
def _row(boxes, box, AXIS: tl.constexpr, bin):
    """Return begin and side of a bin along an axis, in cells, and its number of samples."""
    at = boxes + box * 6 + AXIS
    side = tl.load(at + 2)
    return tl.load(at) + bin * side, side, tl.load(at + 4)


@triton.jit
def _reach(base, side, samples, cells):
    """Return the first sample that may lie about the map, and one past the last."""
    spacing = tl.div_rn(side, tl.maximum(samples, 1.0))
    known = tl.where(spacing > 0, spacing, 1.0)
    first = tl.minimum(tl.maximum(tl.floor((-1 - base) / known - 3), 0.0), samples)
    last = tl.minimum(tl.maximum(tl.ceil((cells - base) / known + 3), 0.0), samples)
    # any sample may be there where none is farther than another
    return tl.where(spacing > 0, first, 0.0).to(tl.int32), tl.where(spacing > 0, last, samples).to(tl.int32)


@triton.jit
def _corner(base, side, samples, number, cells):
    """Return the cells before and after a sample, the distance from the first, and whether it lies about the map."""
    at = base + tl.div_rn((number + 0.5) * side, tl.maximum(samples, 1.0))
    inside = (at >= -1) & (at <= cells)
    at = tl.where(inside, tl.maximum(at, 0.0), 0.0)
    low = tl.minimum(at.to(tl.int32), cells - 1)
    high = tl.minimum(low + 1, cells - 1)
    return low, high, tl.where(low < high, at - low.to(tl.float32), 0.0), inside


@triton.jit
def _cells(map, cell, channel, channels, use):
    """Return cells (P,) of the map, (P,D) float32."""
    return tl.load(map + cell[:, None] * channels + channel[None, :], mask=use, other=0.0).to(tl.float32)


@triton.jit
def _add(sums, cell, channel, channels, values, use):
    tl.atomic_add(sums + cell[:, None] * channels + channel[None, :], values, mask=use, sem="relaxed")


@triton.jit
def _bins(box, row, bin, channel, channels, SIZE: tl.constexpr):
    """Return the places (P,D) of a row of bins in (R,C,P,P)."""
    return ((box.to(tl.int64) * channels + channel)[None, :] * SIZE + row) * SIZE + bin[:, None]
