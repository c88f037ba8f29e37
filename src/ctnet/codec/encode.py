"""Boxes become training targets ("Objects as Points", section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.gaussian import draw_gaussians, footprint_pixels, gaussian_radius
from ctnet.types import Float32, Int64


@dataclass(frozen=True)
class CenterTargets:
    """Targets of one picture; row n of the arrays belongs to object n, rows of unusable objects are zero.

    `heatmap` (C,H,W) float32, 1 exactly at centres; `size` (N,2) float32 width and height in cells; `offset` (N,2)
    float32 centre minus its cell, x then y; `cell` (N,) int64 row * W + column; `label` (N,) int64; `valid` (N,)
    bool. `dense_size` (2,H,W) float32 is size spread over the footprints, or None.
    """

    heatmap: Float32
    size: Float32
    offset: Float32
    cell: Int64
    label: Int64
    valid: NDArray[np.bool_]
    dense_size: Float32 | None = None


def encode_centers(
    boxes_cells: Float32,
    labels: Int64,
    num_classes: int,
    map_hw: tuple[int, int],
    *,
    dense_size: bool = False,
) -> CenterTargets:
    """Return the targets of boxes (N,4) xyxy given in cells, not yet clipped.

    Boxes are clipped to the map; those without area left are not trained on. Two objects in one cell both stay:
    each has its own row.
    """
    height, width = map_hw
    boxes = boxes_cells.astype(np.float32).copy()
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width - 1)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height - 1)
    size = boxes[:, 2:] - boxes[:, :2]
    valid: NDArray[np.bool_] = np.all(size > 0, axis=1)
    center = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2)
    cell_xy = center.astype(np.int64)
    wide = np.where(valid[:, None], np.ceil(size), 1)
    radii = np.maximum(gaussian_radius(wide[:, 1], wide[:, 0]).astype(np.int64), 0)

    heatmap = np.zeros((num_classes, height, width), np.float32)
    draw_gaussians(heatmap, labels[valid], cell_xy[valid], radii[valid])
    keep = valid[:, None]
    return CenterTargets(
        heatmap=heatmap,
        size=np.where(keep, size, 0).astype(np.float32),
        offset=np.where(keep, center - cell_xy, 0).astype(np.float32),
        cell=np.where(valid, cell_xy[:, 1] * width + cell_xy[:, 0], 0),
        label=np.where(valid, labels, 0),
        valid=valid,
        dense_size=_spread_size(size[valid], cell_xy[valid], radii[valid], map_hw) if dense_size else None,
    )


def _spread_size(size: Float32, cell_xy: Int64, radii: Int64, map_hw: tuple[int, int]) -> Float32:
    """Return sizes over the footprints, (2,H,W): in each cell that of the highest gaussian, the later of equals.

    As upstream, an object's own float64 value must reach the float32 heatmap, so that about half of the cells of a
    footprint, those where rounding went up, stay zero.
    """
    height, width = map_hw
    owner, cell, value = footprint_pixels(cell_xy, radii, map_hw)
    highest = np.zeros(height * width, np.float32)
    spread = np.zeros((2, height * width), np.float32)
    for index in range(len(radii)):
        mine = owner == index
        cells, values = cell[mine], value[mine]
        highest[cells] = np.maximum(highest[cells], values.astype(np.float32))
        won = values >= highest[cells]
        spread[:, cells[won]] = size[index][:, None]
    return spread.reshape(2, height, width)
