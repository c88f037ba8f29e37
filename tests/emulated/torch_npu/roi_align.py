"""The vendor's RoIAlign, sample by sample, as the vendor's own tests describe it; written apart from ctnet's.

Rows are (image, x1, y1, x2, y2). Modes 0 and 1 have boxes of at least a cell, 1 with x2 and y2 a pixel farther; from 2
on they are moved by half a cell and keep their size. Everything is in float32.
"""

import math

import torch

from emulation.tensor import CALLS, CardTensor


def npu_roi_align(input, rois, spatial_scale, pooled_height, pooled_width, sample_num, roi_end_mode):
    CALLS["npu_roi_align"] += 1
    x, boxes = _hosts(input, rois)
    result = torch.zeros(len(boxes), x.shape[1], pooled_height, pooled_width)
    for n, ph, pw, image, corners in _bins(
        boxes, spatial_scale, (pooled_height, pooled_width), sample_num, roi_end_mode, x
    ):
        for row, column, weight in corners:
            result[n, :, ph, pw] += weight * x[image, :, row, column]
    return CardTensor(result)


def npu_roi_alignbk(
    input, rois, xdiff_shape, pooled_width, pooled_height, spatial_scale, sample_num, roi_end_mode=None
):
    CALLS["npu_roi_alignbk"] += 1
    grad, boxes = _hosts(input, rois)
    result = torch.zeros(xdiff_shape)
    size = (pooled_height, pooled_width)
    for n, ph, pw, image, corners in _bins(boxes, spatial_scale, size, sample_num, roi_end_mode or 0, result):
        for row, column, weight in corners:
            result[image, :, row, column] += weight * grad[n, :, ph, pw]
    return CardTensor(result)


def _hosts(*tensors):
    for tensor in tensors:
        if not isinstance(tensor, CardTensor) or tensor.numel() == 0 or tensor.dtype != torch.float32:
            raise RuntimeError("roi_align: float32 on the card with at least one element is expected")
    return [tensor.host for tensor in tensors]


def _bins(boxes, scale, size, samples, mode, map):
    """Yield box, row and column of each bin, the image, and its corners as (row, column, weight)."""
    for n, (image, *edges) in enumerate(boxes):
        x1, y1, x2, y2 = (edge * scale for edge in edges)
        if mode == 1:
            x2, y2 = x2 + scale, y2 + scale
        elif mode > 1:
            x1, y1, x2, y2 = (edge - 0.5 for edge in (x1, y1, x2, y2))
        sides = [y2 - y1, x2 - x1]
        if mode < 2:
            sides = [max(side, torch.tensor(1.0)) for side in sides]
        bins = [side / count for side, count in zip(sides, size, strict=True)]
        grid = [samples or math.ceil(side) for side in bins]
        for ph in range(size[0]):
            for pw in range(size[1]):
                along = [
                    [start + p * side + (i + 0.5) * side / g for i in range(g)]
                    for start, p, side, g in zip((y1, x1), (ph, pw), bins, grid, strict=True)
                ]
                corners = [
                    (y, x, wy * wx / (grid[0] * grid[1]))
                    for y, wy in _corners(along[0], map.shape[2])
                    for x, wx in _corners(along[1], map.shape[3])
                ]
                yield n, ph, pw, int(image), corners


def _corners(places, cells):
    for place in map(float, places):
        if -1 <= place <= cells:
            low = min(int(max(place, 0)), cells - 1)
            part = max(place, 0) - low if low < cells - 1 else 0
            yield from ((low, 1 - part), (min(low + 1, cells - 1), part))
