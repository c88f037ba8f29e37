"""Objects on the levels of a pyramid, as CenterNet2's first stage is taught them (Zhou et al., 2021, section 4).

Shape letters: N objects, L levels, M cells of all levels of an image, the finest first, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_DELTA = (1 - 0.8) / (1 + 0.8)  # from the overlap of 0.8 that boxes have at the edge of a bump
_SMALLEST_RADIUS = 4.0
_FAINTEST = 1e-4
_ROW = torch.tensor([-1, 0, 1])
NEIGHBOURS = torch.stack([_ROW.repeat(3), _ROW.repeat_interleave(3)], 1)
"""(9,2): column and row of the 3x3 cells around a cell, row by row"""


class Cells(NamedTuple):
    """All cells of a pyramid: their positions `xy` (M,2) in pixels, and their `stride` (M,).

    Of each level its stride (L,), height and width `hw` (L,2) in cells, and `first` (L,), the cells before it.
    """

    xy: Tensor
    stride: Tensor
    strides: Tensor
    hw: Tensor
    first: Tensor


class Assignment(NamedTuple):
    """Targets of the cells of an image.

    `center` (N,L) int64 is the cell of each object's centre on each level and `positive` (N,L) where it counts;
    `box` (M,4) holds left, top, right, bottom in strides where `learns` (M,); `heat` (M,) in 0..1 the class-agnostic
    heatmap.
    """

    center: Tensor
    positive: Tensor
    box: Tensor
    learns: Tensor
    heat: Tensor


def level_sizes(input_hw: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Return height and width in cells of each level for an input of this size."""
    return [(-(-input_hw[0] // stride), -(-input_hw[1] // stride)) for stride in strides]


def cells_of(sizes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | None = None) -> Cells:
    """Return the cells of levels of these sizes (height, width). A cell's position is its middle, rounded down."""
    xy, stride, first = [], [], [0]
    for (height, width), step in zip(sizes, strides, strict=True):
        rows = torch.arange(height, device=device, dtype=torch.float32) * step + step // 2
        columns = torch.arange(width, device=device, dtype=torch.float32) * step + step // 2
        xy.append(torch.stack([columns.repeat(height), rows.repeat_interleave(width)], 1))
        stride.append(torch.full((height * width,), float(step), device=device))
        first.append(first[-1] + height * width)
    steps, hw = torch.tensor([float(step) for step in strides], device=device), torch.tensor(sizes, device=device)
    return Cells(torch.cat(xy), torch.cat(stride), steps, hw, torch.tensor(first[:-1], device=device))


def assign(boxes: Tensor, cells: Cells, ranges: Sequence[tuple[float, float]]) -> Assignment:
    """Return the targets of objects (N,4) in pixels, all with areas and within the image.

    An object belongs to the levels whose range of half diagonals holds its own, both ends included. Boxes are learned
    in the 3x3 cells around a centre that lie within the object; of several objects the one whose centre is nearest,
    relative to its size, counts.
    """
    limits = boxes.new_tensor(ranges)
    column_row = _center_cells(boxes, cells.strides)
    center = cells.first + column_row[..., 1] * cells.hw[:, 1] + column_row[..., 0]
    half = (boxes[:, 2:] - boxes[:, :2]).square().sum(1).sqrt() / 2
    positive = (half[:, None] >= limits[:, 0]) & (half[:, None] <= limits[:, 1])
    count = len(cells.xy)
    if len(boxes) == 0:
        nothing = boxes.new_zeros(count)
        return Assignment(center, positive, boxes.new_zeros(count, 4), nothing.bool(), nothing)
    distance = relative_distance(boxes, cells)
    sides = torch.cat([cells.xy - boxes[:, None, :2], boxes[:, None, 2:] - cells.xy], -1)
    beside = torch.ones_like(distance, dtype=torch.bool)
    for at, snapped in zip(cells.xy.unbind(-1), _snapped(boxes, cells.stride), strict=True):
        beside &= (at - snapped).abs() <= cells.stride
    level = torch.bucketize(cells.stride, cells.strides)
    half_here = (sides[..., :2] + sides[..., 2:]).square().sum(-1).sqrt() / 2
    fits = (half_here >= limits[level, 0]) & (half_here <= limits[level, 1])
    candidate = (sides.amin(-1) > 0) & beside & fits
    nearest, which = torch.where(candidate, distance, torch.inf).min(0)
    learns = nearest.isfinite()
    box = sides[which, torch.arange(count, device=boxes.device)] / cells.stride[:, None]
    return Assignment(center, positive, torch.where(learns[:, None], box, 0), learns, bump(distance.amin(0)))


def relative_distance(boxes: Tensor, cells: Cells) -> Tensor:
    """Return (...,N,M) the squared distances of cells from the centres of boxes (...,N,4), in squared radii.

    That of the cell which holds the centre is 0, on every level.
    """
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    (x, y), (snapped_x, snapped_y) = middle.unsqueeze(-2).unbind(-1), _snapped(boxes, cells.stride)
    at_x, at_y = cells.xy.unbind(-1)
    distance = (at_x - x).square() + (at_y - y).square()
    distance = torch.where((at_x == snapped_x) & (at_y == snapped_y), 0, distance)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    radius = (_DELTA**2 * 2 * area).clamp(min=_SMALLEST_RADIUS**2)
    return distance / radius.unsqueeze(-1)


def bump(distance: Tensor) -> Tensor:
    """Return the heat at relative squared distances: 1 at a centre, 0 where it would be faint."""
    heat = (-distance).exp()
    return torch.where(heat < _FAINTEST, 0, heat)


def neighbourhood(boxes: Tensor, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
    """Return the 3x3 cells around the centres of boxes (...,4) on each level.

    Flat cells (...,L,9), the distances (...,L,9,4) from there to the box's sides in strides, and (...,L,9) whether the
    cell is inside of map and box.
    """
    around = _center_cells(boxes, cells.strides).unsqueeze(-2) + NEIGHBOURS.to(boxes.device)
    height, width = (cells.hw[:, i, None] for i in (0, 1))
    column, row = around.unbind(-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = cells.first[:, None] + row * width + column
    stride = cells.strides[:, None, None]
    middle = around[..., 4:5, :] * stride + stride // 2
    edges = boxes[..., None, None, :]
    sides = torch.cat([middle - edges[..., :2], edges[..., 2:] - middle], -1) / stride
    step = NEIGHBOURS.to(boxes)
    sides = sides + torch.cat([step, -step], 1)
    return torch.where(inside, flat, 0), sides, inside & (sides.amin(-1) >= 0)


def _center_cells(boxes: Tensor, strides: Tensor) -> Tensor:
    """Return (...,L,2) int64, column and row of the cells that hold the centres of boxes (...,4)."""
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2
    return (middle.unsqueeze(-2) / strides[:, None]).long()


def _snapped(boxes: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y (...,N,M), for each cell, of the middle of the cell of that stride that holds the box's centre."""
    x, y = ((boxes[..., :2] + boxes[..., 2:]) / 2).unsqueeze(-2).unbind(-1)
    return (x / stride).int() * stride + stride / 2, (y / stride).int() * stride + stride / 2
