"""Boxes become training targets ("Objects as Points", section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.gaussian import draw_gaussians, footprint_pixels, gaussian_radius
from ctnet.types import Float32, Int64, TargetRules


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
    rules: TargetRules = "centernet",
    dense_size: bool = False,
) -> CenterTargets:
    """Return the targets of boxes (N,4) xyxy given in cells, not yet clipped.

    CenterNet's rules: boxes are clipped to the map; those without area left are not trained on. Two objects in one
    cell both stay: each has its own row. mmdet's rules: boxes whose middle is outside are not trained on; in a cell
    the later object alone has a size and an offset; footprints are smaller.
    """
    height, width = map_hw
    boxes = boxes_cells.astype(np.float32)
    boxes, drawn = _clip_to_cells(boxes, map_hw) if rules == "centernet" else _clip_to_view(boxes, map_hw)
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2)
    cell_xy = center.astype(np.int64)
    radii = _radii(np.where(drawn[:, None], size, 1), rules)

    heatmap = np.zeros((num_classes, height, width), np.float32)
    draw_gaussians(heatmap, labels[drawn], cell_xy[drawn], radii[drawn])
    cell = np.where(drawn, cell_xy[:, 1] * width + cell_xy[:, 0], 0)
    valid = drawn if rules == "centernet" else _last_of_cell(cell, drawn)
    keep = valid[:, None]
    return CenterTargets(
        heatmap=heatmap,
        size=np.where(keep, size, 0).astype(np.float32),
        offset=np.where(keep, center - cell_xy, 0).astype(np.float32),
        cell=np.where(valid, cell, 0),
        label=np.where(valid, labels, 0),
        valid=valid,
        dense_size=_spread_size(size[valid], cell_xy[valid], radii[valid], map_hw) if dense_size else None,
    )


def _clip_to_cells(boxes: Float32, map_hw: tuple[int, int]) -> tuple[Float32, NDArray[np.bool_]]:
    """Return CenterNet's boxes, clipped to the first and last cell's corner, and which of them have area left."""
    last = np.array([map_hw[1] - 1, map_hw[0] - 1] * 2, np.float32)
    clipped = boxes.clip(0, last)
    return clipped, np.all(clipped[:, 2:] > clipped[:, :2], axis=1)


def _clip_to_view(boxes: Float32, map_hw: tuple[int, int]) -> tuple[Float32, NDArray[np.bool_]]:
    """Return mmdet's boxes, which its crop clips to the view, and which had their middle in it."""
    end = np.array([map_hw[1], map_hw[0]] * 2, np.float32)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = np.all((middle > 0) & (middle < end[:2]) & (boxes[:, 2:] > boxes[:, :2]), axis=1)
    return boxes.clip(0, end), inside


def _radii(size: Float32, rules: TargetRules) -> Int64:
    """Return the footprints' radii in cells for sizes (N,2) width and height."""
    if rules == "centernet":
        size = np.ceil(size)
        radii = gaussian_radius(size[:, 1], size[:, 0])
    else:
        radii = gaussian_radius(size[:, 1], size[:, 0], 0.3, exact=True)
    return np.maximum(radii.astype(np.int64), 0)


def _last_of_cell(cell: Int64, drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which drawn objects have no later one in their cell."""
    last = {int(cell[index]): index for index in np.flatnonzero(drawn)}
    chosen = np.zeros_like(drawn)
    chosen[list(last.values())] = True
    return chosen


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
