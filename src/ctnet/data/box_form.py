"""The forms that boxes come in, and what their numbers reveal: corners stored as sizes, fractions stored as pixels."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ctnet.types import Float32

Float64 = NDArray[np.float64]
Boxes = TypeVar("Boxes", Float32, Float64)

MARGIN_PX = 1.0
"""boxes may leave their image by this much before anything reports it: annotation tools round"""


def to_xywh(boxes_xyxy: Boxes) -> Boxes:
    """Return corners (N,4) as x, y, width, height."""
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


def from_centres(boxes: Float32, size_hw: tuple[int, int]) -> Float32:
    """Return boxes (N,4) of fractions centre x, centre y, width, height as corners in pixels of (height, width)."""
    scale = np.array(size_hw[::-1], np.float32)
    middle, half = boxes[:, :2] * scale, boxes[:, 2:] * scale / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def to_centres(boxes_xyxy: Float32, size_hw: tuple[int, int]) -> Float64:
    """Return corners (N,4) in pixels of (height, width) as fractions centre x, centre y, width, height."""
    boxes = to_xywh(boxes_xyxy.astype(np.float64))
    boxes[:, :2] += boxes[:, 2:] / 2
    return np.asarray(boxes / np.array((*size_hw[::-1], *size_hw[::-1]), np.float64))


def rotated_bounds(x: float, y: float, width: float, height: float, angle: float) -> tuple[float, float, float, float]:
    """Return x, y, width, height of the bounds of a box around the centre x, y, turned by an angle in radians."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    w, h = width * cos + height * sin, width * sin + height * cos
    return x - w / 2, y - h / 2, w, h


def reaches_outside(boxes_xywh: Float64, sizes_wh: Float64) -> NDArray[np.bool_]:
    """Return (N,) True for boxes with an edge more than a pixel outside their image.

    Boxes are (N,4) x, y, width, height, here and below; `sizes_wh` (N,2) are width and height of each box's image.
    """
    ends = boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    return _any_side((boxes_xywh[:, :2] < -MARGIN_PX) | (ends > sizes_wh + MARGIN_PX))


def looks_like_corners(boxes_xywh: Float64, sizes_wh: Float64) -> bool:
    """Return whether most boxes leave their image as they are and fit it when read as `x1, y1, x2, y2`."""
    first, second = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    misfits_as_corners = _any_side((first >= second) | (second > sizes_wh + MARGIN_PX))
    return _most(reaches_outside(boxes_xywh, sizes_wh)) and _most(~misfits_as_corners)


def looks_normalised(boxes_xywh: Float64, sizes_wh: Float64) -> bool:
    """Return whether most boxes have a size and yet lie within the first pixel: fractions of the image."""
    larger = _any_side((boxes_xywh < 0) | (boxes_xywh > 1))
    return _most(~larger & ~_any_side(boxes_xywh[:, 2:] <= 0) & ~_any_side(sizes_wh <= 2))


def _any_side(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(flags.any(axis=1), np.bool_)


def _most(flags: NDArray[np.bool_]) -> bool:
    return bool(flags.sum() * 2 > len(flags))
