"""Objects become positions on a map ("Objects as Points", section 3); the heads compute targets from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.gaussian import draw_gaussians, footprint_pixels, gaussian_radius
from ctnet.types import Float32, Int64, Objects

MapSize = tuple[int, int]


@dataclass(frozen=True)
class Centers:
    """The objects of one image on a map; row n of the arrays belongs to object n.

    `objects` are in cells, their boxes clipped. `size` (N,2) float32 is width and height and `center` (N,2) float32
    the middle, x then y, in cells; `cell_xy` (N,2) int64 is its cell, `cell` (N,) int64 the
    same as row * W + column, 0 for objects that are not drawn, and `radii` (N,) int64 that of the gaussian.
    `drawn` (N,) bool marks objects in the heatmap, `valid` (N,) bool those whose regression counts.
    """

    objects: Objects
    map_hw: MapSize
    size: Float32
    center: Float32
    cell_xy: Int64
    cell: Int64
    radii: Int64
    drawn: NDArray[np.bool_]
    valid: NDArray[np.bool_]


Clip = Callable[[Float32, MapSize], tuple[Float32, NDArray[np.bool_]]]
Radii = Callable[[Float32], NDArray[np.float64]]


def place_centers(objects: Objects, map_hw: MapSize, clip: Clip, radii: Radii, *, last_wins: bool) -> Centers:
    """Return the places of objects given in cells, not yet clipped.

    `clip` returns the boxes (N,4) as they are taught and which of them are; `radii` the gaussians' radii in cells of
    sizes (N,2). Of two objects in a cell both are compared there or, if `last_wins`, the later alone.
    """
    boxes, drawn = clip(objects.boxes_xyxy.astype(np.float32), map_hw)
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) / np.float32(2)
    cell_xy = center.astype(np.int64)
    cell = np.where(drawn, cell_xy[:, 1] * map_hw[1] + cell_xy[:, 0], 0)
    usable = np.where(drawn[:, None], size, np.float32(1))
    return Centers(
        objects=Objects(boxes, objects.labels, objects.keypoints),
        map_hw=map_hw,
        size=size,
        center=center,
        cell_xy=cell_xy,
        cell=cell,
        radii=np.maximum(radii(usable).astype(np.int64), 0),
        drawn=drawn,
        valid=_last_of_cell(cell, drawn) if last_wins else drawn,
    )


def draw_centers(centers: Centers, num_classes: int, sigma: float | None = None) -> Float32:
    """Return the heatmap (C,H,W) float32 of the drawn objects, 1 exactly at their centres.

    With `sigma`, in cells, all gaussians have this standard deviation and are cut at three of them.
    """
    heatmap = np.zeros((num_classes, *centers.map_hw), np.float32)
    drawn = centers.drawn
    radii = centers.radii if sigma is None else np.full_like(centers.radii, round(3 * sigma))
    draw_gaussians(heatmap, centers.objects.labels[drawn], centers.cell_xy[drawn], radii[drawn], sigma)
    return heatmap


def draw_points(centers: Centers, places: Float32, labelled: NDArray[np.bool_]) -> Float32:
    """Return heatmaps (P,H,W) float32 of key points at `places` (N,P,2) in cells; their radii are those of the objects.

    Only points are drawn that are `labelled` (N,P) and of an object that is drawn.
    """
    heatmaps = np.zeros((places.shape[1], *centers.map_hw), np.float32)
    owner, point = np.nonzero(labelled & centers.drawn[:, None])
    draw_gaussians(heatmaps, point, places[owner, point].astype(np.int64), centers.radii[owner])
    return heatmaps


def clip_to_cells(boxes: Float32, map_hw: MapSize) -> tuple[Float32, NDArray[np.bool_]]:
    """Return CenterNet's boxes, clipped to the first and last cell's corner, and which of them have area left."""
    last = np.array([map_hw[1] - 1, map_hw[0] - 1] * 2, np.float32)
    clipped = boxes.clip(0, last)
    return clipped, np.all(clipped[:, 2:] > clipped[:, :2], axis=1)


def clip_to_view(boxes: Float32, map_hw: MapSize) -> tuple[Float32, NDArray[np.bool_]]:
    """Return mmdet's boxes, which its crop clips to the view, and which had their middle in it."""
    end = np.array([map_hw[1], map_hw[0]] * 2, np.float32)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = np.all((middle > 0) & (middle < end[:2]) & (boxes[:, 2:] > boxes[:, :2]), axis=1)
    return boxes.clip(0, end), inside


def centernet_radii(size: Float32) -> NDArray[np.float64]:
    """Return CenterNet's radii in cells for sizes (N,2) width and height."""
    size = np.ceil(size)
    return gaussian_radius(size[:, 1], size[:, 0])


def mmdet_radii(size: Float32) -> NDArray[np.float64]:
    """Return mmdet's radii in cells for sizes (N,2) width and height, which are smaller."""
    return gaussian_radius(size[:, 1], size[:, 0], 0.3, exact=True)


def _last_of_cell(cell: Int64, drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which drawn objects have no later one in their cell."""
    last = {int(cell[index]): index for index in np.flatnonzero(drawn)}
    chosen = np.zeros_like(drawn)
    chosen[list(last.values())] = True
    return chosen


def spread_size(centers: Centers) -> Float32:
    """Return sizes over the footprints, (2,H,W): in each cell that of the highest gaussian, the later of equals.

    As upstream, an object's own float64 value must reach the float32 heatmap, so that about half of the cells of a
    footprint, those where rounding went up, stay zero.
    """
    height, width = centers.map_hw
    size, radii = centers.size[centers.valid], centers.radii[centers.valid]
    owner, cell, value = footprint_pixels(centers.cell_xy[centers.valid], radii, centers.map_hw)
    highest = np.zeros(height * width, np.float32)
    spread = np.zeros((2, height * width), np.float32)
    for index in range(len(radii)):
        mine = owner == index
        cells, values = cell[mine], value[mine]
        highest[cells] = np.maximum(highest[cells], values.astype(np.float32))
        won = values >= highest[cells]
        spread[:, cells[won]] = size[index][:, None]
    return spread.reshape(2, height, width)


def spread_points(centers: Centers, places: Float32, labelled: NDArray[np.bool_]) -> Float32:
    """Return key points over the footprints of objects, (3P,H,W): 2P numbers, then P weights, the gaussians.

    The numbers are x and y of each point in turn, measured from each cell. In a cell they are those of the highest
    gaussian, the later of equals; weights take the maximum of all, as in the original's `dense_hp`.
    """
    height, width = centers.map_hw
    count = places.shape[1]
    drawn = np.flatnonzero(centers.drawn)
    owner, cell, value = footprint_pixels(centers.cell_xy[drawn], centers.radii[drawn], centers.map_hw)
    highest = np.zeros(height * width, np.float32)
    numbers = np.zeros((count, 2, height * width), np.float32)
    weights = np.zeros((count, height * width), np.float32)
    for index, of_object in enumerate(drawn):
        mine = owner == index
        cells, values = cell[mine], value[mine]
        won = cells[values >= highest[cells]]
        xy = np.stack([won % width, won // width])
        for point in np.flatnonzero(labelled[of_object]):
            numbers[point][:, won] = places[of_object, point][:, None] - xy
            weights[point, cells] = np.maximum(weights[point, cells], values.astype(np.float32))
        highest[cells] = np.maximum(highest[cells], values.astype(np.float32))
    return np.concatenate([numbers.reshape(2 * count, height, width), weights.reshape(count, height, width)])
