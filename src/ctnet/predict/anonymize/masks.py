"""Masks over an image: where they lie, and what is seen in their place."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ctnet.data.image import Image

How = Literal["blur", "pixelate", "solid"]
Outline = Literal["ellipse", "box"]
Box = tuple[float, float, float, float]

_CELLS = 6
"""values, along each side of a mask, that are left of what was there"""
_SMALLEST_CELL = 6
"""pixels; small masks keep fewer values"""
_TALL = 1.25
"""height by width of a face, as far as its box does not say: at a turn of 45 degrees the two sides are alike"""


class Mask(NamedTuple):
    """An ellipse or a rectangle (`outline`) by its centre, half its width and half its height in pixels.

    `turn` is in degrees, clockwise.
    """

    x: float
    y: float
    across: float
    along: float
    turn: float
    outline: Outline


def mask_over(box: Box, turn: float, scale: float, outline: Outline) -> Mask:
    """Return the mask of an object turned by `turn` degrees, `scale` times the size of its upright `box`.

    What is turned fills its box differently: the mask is the ellipse whose own upright box contains this one. Upright
    and lying objects keep the ratio of their sides; between them a face's is assumed.
    """
    x1, y1, x2, y2 = box
    half_width, half_height = max(x2 - x1, 1) / 2, max(y2 - y1, 1) / 2
    angle = math.radians(turn)
    upright, lying = math.cos(angle) ** 2, math.sin(angle) ** 2
    certain = upright - lying
    tall = math.exp(math.log(half_height / half_width) * certain + math.log(_TALL) * (1 - abs(certain)))
    across = max(half_width / math.sqrt(upright + lying * tall**2), half_height / math.sqrt(lying + upright * tall**2))
    return Mask((x1 + x2) / 2, (y1 + y2) / 2, across * scale, across * tall * scale, turn, outline)


def whole(image: Image) -> Mask:
    """Return the mask that hides all of an image."""
    height, width = image.shape[:2]
    return Mask(width / 2, height / 2, width / 2, height / 2, 0, "box")


def bounds(mask: Mask) -> Box:
    """Return the upright box around a mask."""
    cos, sin = abs(math.cos(math.radians(mask.turn))), abs(math.sin(math.radians(mask.turn)))
    if mask.outline == "ellipse":
        half_width, half_height = (
            math.hypot(mask.across * cos, mask.along * sin),
            math.hypot(mask.across * sin, mask.along * cos),
        )
    else:
        half_width, half_height = mask.across * cos + mask.along * sin, mask.across * sin + mask.along * cos
    return mask.x - half_width, mask.y - half_height, mask.x + half_width, mask.y + half_height


def hide(image: Image, mask: Mask, how: How) -> None:
    """Change the pixels of the image under a mask; what lies outside of the image is left out.

    `solid` is black. `blur` and `pixelate` leave at most 6 x 6 averages, joined smoothly or as squares.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = bounds(mask)
    x1, y1 = max(math.floor(left), 0), max(math.floor(top), 0)
    x2, y2 = min(math.ceil(right), width), min(math.ceil(bottom), height)
    if x2 <= x1 or y2 <= y1:
        return
    patch = image[y1:y2, x1:x2]
    hidden = _hidden(patch, how)
    if mask.outline == "box" and mask.turn == 0:
        patch[:] = hidden
    else:
        stencil = _stencil(mask, (x1, y1), patch.shape[:2])
        patch[:] = cv2.copyTo(hidden, stencil, patch.copy())


def _hidden(patch: Image, how: How) -> Image:
    if how == "solid":
        return np.zeros_like(patch)
    height, width = patch.shape[:2]
    cells = [min(_CELLS, max(side // _SMALLEST_CELL, 1)) for side in (width, height)]
    averages = cv2.resize(patch, cells, interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_CUBIC if how == "blur" else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(averages, (width, height), interpolation=smooth), np.uint8)


def _stencil(mask: Mask, origin: tuple[int, int], size_hw: tuple[int, ...]) -> Image:
    """Return 255 under the mask and 0 beside it, for the part of the image at `origin`."""
    stencil = np.zeros(size_hw[:2], np.uint8)
    centre, sides = (mask.x - origin[0], mask.y - origin[1]), (2 * mask.across, 2 * mask.along)
    if mask.outline == "ellipse":
        cv2.ellipse(stencil, (centre, sides, mask.turn), 255, -1)
    else:
        cv2.fillConvexPoly(stencil, np.rint(cv2.boxPoints((centre, sides, mask.turn))).astype(np.int32), 255)
    return stencil
