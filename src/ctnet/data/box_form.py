"""What the numbers of boxes give away: corners stored as width and height, fractions stored as pixels.

Boxes are (N,4) float64 `x, y, width, height`, sizes are (N,2) `width, height` of each box's picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

MARGIN_PX = 1.0
"""boxes may leave their picture by this much before anybody is told: annotation tools round"""


def reaches_outside(boxes_xywh: Float64, sizes_wh: Float64) -> NDArray[np.bool_]:
    """Return (N,) True for boxes with an edge more than a pixel outside of their picture."""
    ends = boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    return _any_side((boxes_xywh[:, :2] < -MARGIN_PX) | (ends > sizes_wh + MARGIN_PX))


def looks_like_corners(boxes_xywh: Float64, sizes_wh: Float64) -> bool:
    """Say whether most boxes leave their picture as they are and fit it when read as `x1, y1, x2, y2`."""
    first, second = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    misfits_as_corners = _any_side((first >= second) | (second > sizes_wh + MARGIN_PX))
    return _most(reaches_outside(boxes_xywh, sizes_wh)) and _most(~misfits_as_corners)


def looks_normalised(boxes_xywh: Float64, sizes_wh: Float64) -> bool:
    """Say whether most boxes have a size and yet lie within the first pixel: fractions of the picture."""
    larger = _any_side((boxes_xywh < 0) | (boxes_xywh > 1))
    return _most(~larger & ~_any_side(boxes_xywh[:, 2:] <= 0) & ~_any_side(sizes_wh <= 2))


def _any_side(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(flags.any(axis=1), np.bool_)


def _most(flags: NDArray[np.bool_]) -> bool:
    return bool(flags.sum() * 2 > len(flags))
