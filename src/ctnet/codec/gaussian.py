"""Gaussian footprints around object centres.

Radius and shape are CenterNet's, which took them from CornerNet: the quadratic roots are not divided by 2a, so the
footprints are about 3.3 times wider than the stated overlap asks for. Trained weights depend on it. mmdet takes the
roots as they are, of a smaller overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ctnet.types import Float32, Int64


def gaussian_radius(
    height: NDArray[np.floating], width: NDArray[np.floating], min_overlap: float = 0.7, *, exact: bool = False
) -> NDArray[np.float64]:
    """Return how far (in cells, float) a corner may move for boxes of these sizes, element by element.

    With `exact` roots the overlap is the stated one (mmdet); otherwise they are CenterNet's.
    """
    height, width = np.asarray(height, np.float64), np.asarray(width, np.float64)
    total, area = height + width, height * width

    def root(a: float, b: NDArray[np.float64], c: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
        spread = np.sqrt(b * b - 4 * a * c)
        return (b + sign * spread) / (2 * a) if exact else (b + spread) / 2

    one_in_one_out = root(1, total, area * (1 - min_overlap) / (1 + min_overlap), -1)
    both_inside = root(4, 2 * total, (1 - min_overlap) * area, -1)
    both_outside = root(4 * min_overlap, -2 * min_overlap * total, (min_overlap - 1) * area, 1)
    return np.minimum(np.minimum(one_in_one_out, both_inside), both_outside)


def footprint_pixels(
    centers_xy: Int64, radii: Int64, map_hw: tuple[int, int], sigma: float | None = None
) -> tuple[Int64, Int64, NDArray[np.float64]]:
    """Return (object, cell, value) of every cell that the objects' gaussians touch, object by object.

    A gaussian spans 2r+1 cells with sigma (2r+1)/6 unless it is given, is 1 at its centre and is cut at the map's edge.
    Centres may lie outside the map. All three arrays are one-dimensional; `cell` is row * width + column.
    """
    height, width = map_hw
    x, y = centers_xy[:, 0], centers_xy[:, 1]
    left, right = np.maximum(x - radii, 0), np.minimum(x + radii + 1, width)
    top, bottom = np.maximum(y - radii, 0), np.minimum(y + radii + 1, height)
    columns, rows = np.maximum(right - left, 0), np.maximum(bottom - top, 0)
    counts = columns * rows
    owner = np.repeat(np.arange(len(radii)), counts)
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row = top[owner] + nth // columns[owner]
    column = left[owner] + nth % columns[owner]
    spread = (2 * radii[owner] + 1) / 6 if sigma is None else sigma
    distance = (column - x[owner]) ** 2 + (row - y[owner]) ** 2
    value = np.exp(-distance / (2 * spread * spread))
    value[value < np.finfo(np.float64).eps] = 0
    return owner, row * width + column, value


def draw_gaussians(
    heatmap: Float32, labels: Int64, centers_xy: Int64, radii: Int64, sigma: float | None = None
) -> None:
    """Raise a (C,H,W) heatmap, in place, to the gaussians of the objects; overlaps take the maximum."""
    classes, height, width = heatmap.shape
    owner, cell, value = footprint_pixels(centers_xy, radii, (height, width), sigma)
    flat = heatmap.reshape(classes, -1)
    np.maximum.at(flat, (labels[owner], cell), value.astype(np.float32))
