"""Drawing of plots: colours, lines and text on a white image, BGR uint8."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from ctnet.data.image import Image
from ctnet.types import Category

Color = tuple[int, int, int]

INK: Color = (50, 44, 40)
GREY: Color = (150, 144, 140)
GRID: Color = (232, 229, 227)
REST: Color = (205, 200, 196)
WHITE: Color = (255, 255, 255)
PALETTE: tuple[Color, ...] = (
    (180, 119, 31),
    (14, 127, 255),
    (44, 160, 44),
    (40, 39, 214),
    (189, 103, 148),
    (75, 86, 140),
    (194, 119, 227),
    (127, 127, 127),
    (34, 189, 188),
    (207, 190, 23),
)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SHIFT = 4  # bits of a pixel's fraction


def blank(height: int, width: int) -> Image:
    """Return a white image."""
    return np.full((height, width, 3), 255, np.uint8)


def curve(canvas: Image, x: NDArray[np.float64], y: NDArray[np.float64], color: Color, width: int) -> None:
    """Draw a line through points given in pixels and fractions of them."""
    points = np.round(np.stack([x, y], axis=1) * 2**_SHIFT).astype(np.int32)
    cv2.polylines(canvas, [points], False, color, width, cv2.LINE_AA, _SHIFT)


def line(canvas: Image, start: tuple[int, int], end: tuple[int, int], color: Color, width: int = 1) -> None:
    """Draw a straight line between two pixels (x, y)."""
    cv2.line(canvas, start, end, color, width, cv2.LINE_AA)


def dot(canvas: Image, at: tuple[int, int], color: Color, radius: int = 4) -> None:
    """Draw a filled circle around a pixel (x, y)."""
    cv2.circle(canvas, at, radius, color, cv2.FILLED, cv2.LINE_AA)


def letters(category: Category) -> str:
    """Return a name that OpenCV can write, whose letters are those of ASCII: others come out as question marks."""
    drawable = category.name.isascii() and category.name.isprintable()
    return category.name if drawable else f"class {category.id}"


def text(
    canvas: Image,
    words: str,
    at: tuple[int, int],
    color: Color,
    scale: float,
    anchor: Literal["left", "middle", "right"] = "left",
) -> None:
    """Draw text whose left, middle or right end is at a point, centred on it vertically."""
    width, height = text_size(words, scale)
    x = at[0] - {"left": 0, "middle": width // 2, "right": width}[anchor]
    cv2.putText(canvas, words, (x, at[1] + height // 2), _FONT, scale, color, 1, cv2.LINE_AA)


def vertical_text(canvas: Image, words: str, at: tuple[int, int], color: Color, scale: float) -> None:
    """Draw text that reads upwards from a point, centred on it; darkens only, so labels may touch."""
    width, height = text_size(words, scale)
    strip = blank(height + 8, width + 4)
    text(strip, words, (0, (height + 8) // 2), color, scale)
    upright = cv2.rotate(strip, cv2.ROTATE_90_COUNTERCLOCKWISE)
    top, left = max(at[1] - upright.shape[0], 0), max(at[0] - upright.shape[1] // 2, 0)
    target = canvas[top : top + upright.shape[0], left : left + upright.shape[1]]
    np.minimum(target, upright[: target.shape[0], : target.shape[1]], out=target)


def text_size(words: str, scale: float) -> tuple[int, int]:
    """Return width and height of a line of text, in pixels."""
    (width, height), _ = cv2.getTextSize(words, _FONT, scale, 1)
    return int(width), int(height)
