"""What the drawn demo sets share: backgrounds, filled outlines with smooth edges, objects with boxes and key points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Generator = np.random.Generator
_SHIFT = 4  # bits of a pixel's fraction


class Drawn(NamedTuple):
    """An object in a drawn image: category id, box x, y, width, height, area in pixels, key points (P,3) or None."""

    category_id: int
    box_xywh: tuple[int, int, int, int]
    area: float
    keypoints: NDArray[np.float64] | None = None


def background(generator: Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return a soft gradient with large blotches, of middling contrast so that objects stand out, (H,W,3) in 0..255."""
    corners = generator.uniform(50, 200, (2, 2, 1)) + generator.uniform(-25, 25, (2, 2, 3))
    gradient = cv2.resize(corners.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    coarse = generator.normal(0, generator.uniform(2, 14), (int(generator.integers(3, 14)),) * 2)
    blotches = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(gradient + blotches[..., None], np.float32)


def canvas(generator: Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return a background to draw smooth edges on, which OpenCV does in uint8 alone."""
    return np.asarray(background(generator, height, width).clip(0, 255), np.uint8)


def finish(generator: Generator, image: NDArray[np.floating] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image with noise, as uint8."""
    noise = generator.normal(0, generator.uniform(2, 8), image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def fill(image: NDArray[np.uint8], outline: NDArray[np.float64], color: NDArray[np.float64]) -> None:
    """Fill an outline (N,2) in pixels with a BGR colour, its edge smooth."""
    points = np.round(outline * 2**_SHIFT).astype(np.int32)
    cv2.fillPoly(image, [points], tuple(map(float, color)), cv2.LINE_AA, _SHIFT)


def soft_color(generator: Generator, colors: Sequence[Sequence[int]], spread: float) -> NDArray[np.float64]:
    """Return one of the BGR colours, a little changed."""
    chosen = np.array(colors[int(generator.integers(len(colors)))], np.float64)
    return np.asarray((chosen + generator.uniform(-spread, spread, 3)).clip(0, 255))


def outline_box(outline: NDArray[np.float64], shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Return the box x, y, width, height of whole pixels around an outline, within an image of this shape."""
    low = np.floor(outline.min(0)).clip(0, None)
    high = np.ceil(outline.max(0)).clip(None, [shape[1], shape[0]])
    x, y, width, height = map(int, (*low, *(high - low)))
    return x, y, width, height


def apart(
    middle: NDArray[np.float64], side: float, others: Sequence[tuple[NDArray[np.float64], float]], share: float = 0.75
) -> bool:
    """Return whether an object keeps its distance from all others, a share of the mean of both sides."""
    return all(np.hypot(*(middle - other)) >= share * (side + their) / 2 for other, their in others)


def hidden_by(mask: NDArray[np.bool_], objects: Sequence[Drawn]) -> list[Drawn]:
    """Return the objects with the key points that something nearer covers, (H,W), marked as hidden."""
    changed = []
    for one in objects:
        assert one.keypoints is not None
        points = one.keypoints.copy()
        x, y = points[:, :2].round().astype(int).clip(0, np.array(mask.shape)[::-1] - 1).T
        points[(points[:, 2] == 2) & mask[y, x], 2] = 1
        changed.append(one._replace(keypoints=points))
    return changed
