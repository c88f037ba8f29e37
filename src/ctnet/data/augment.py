"""Random changes of training images: one affine warp, then colours.

Every function draws from the generator it is given, so a sample depends on seed, epoch and index alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctnet.codec.affine import Matrix, affine_matrix, transform_points
from ctnet.config import Augment
from ctnet.types import Float32, KeypointSchema, Objects

_LAST_ANCHOR = 5
_MOST_MAGNIFIED = 16.0
_CENTERFACE_PIXELS = 12_000**2


def random_matrix(
    rng: np.random.Generator,
    image_hw: tuple[int, int],
    input_hw: tuple[int, int],
    settings: Augment,
    boxes_xyxy: Float32 | None = None,
) -> Matrix:
    """Return the (2,3) map from image to input pixels of a random crop, rotation, mirror image and transposition.

    Crops that follow an object take one of `boxes_xyxy` (N,4) with area; without one they show the whole image.
    """
    transposed = settings.transpose > 0 and rng.random() < settings.transpose
    if transposed:
        input_hw = input_hw[::-1]
    (height, width), mirrored_hw = image_hw, input_hw
    scale = float(max(height, width))
    center = np.array([width / 2, height / 2])
    if settings.crop == "random":
        low, high = settings.scale
        scale *= rng.choice(np.arange(low, high + 0.05, 0.1))
        border_x, border_y = _border(settings.border, width), _border(settings.border, height)
        center = np.array([rng.integers(border_x, width - border_x), rng.integers(border_y, height - border_y)])
    elif settings.crop == "inside":
        scale *= rng.uniform(*settings.scale)
        center = np.array([_inside(rng, width, scale), _inside(rng, height, scale * input_hw[0] / input_hw[1])])
    elif settings.crop == "shift":
        reach = 2 * settings.shift
        center = center + scale * np.clip(rng.normal(0, settings.shift, 2), -reach, reach)
        scale *= float(
            np.clip(rng.normal(1, settings.scale_jitter), 1 - settings.scale_jitter, 1 + settings.scale_jitter)
        )
    elif settings.crop in ("anchor", "centerface"):
        box = _any_box(rng, boxes_xyxy)
        if box is not None:
            view = _around_object if settings.crop == "anchor" else _as_centerface
            center, scale = view(rng, box, _anchor_side(rng, box, settings.anchors), image_hw, input_hw)
    elif settings.crop == "short_side":
        factor = min(rng.choice(settings.short_sides) / min(image_hw), settings.long_side / max(image_hw))
        factor = float(min(factor, input_hw[0] / height, input_hw[1] / width))
        scale, mirrored_hw = input_hw[1] / factor, (max(1, round(height * factor)), max(1, round(width * factor)))
        center = np.array([input_hw[1], input_hw[0]]) / (2 * factor)
    angle = float(np.clip(rng.normal(0, settings.rotate), -2 * settings.rotate, 2 * settings.rotate))
    if settings.rotate_probability < 1 and rng.random() >= settings.rotate_probability:
        angle = 0.0
    matrix = affine_matrix(center, scale, input_hw[::-1], rotate_deg=angle)
    # Mirroring the input instead of the image gives the same set of views with one matrix.
    if rng.random() < settings.flip:
        matrix = _mirror(matrix, 0, mirrored_hw[1])
    if rng.random() < settings.flip_vertical:
        matrix = _mirror(matrix, 1, mirrored_hw[0])
    return matrix[::-1].copy() if transposed else matrix


def _inside(rng: np.random.Generator, size: int, window: float) -> float:
    """Return a middle for a window that stays within 0..size, or, where it is larger, covers all of it."""
    ends = window / 2, size - window / 2
    return float(rng.uniform(min(ends), max(ends)))


def _any_box(rng: np.random.Generator, boxes_xyxy: Float32 | None) -> NDArray[np.float64] | None:
    """Return one of the boxes with area, None without any."""
    if boxes_xyxy is None:
        return None
    usable = boxes_xyxy[(boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)].astype(np.float64)
    return np.asarray(usable[rng.integers(len(usable))]) if len(usable) else None


def _anchor_side(rng: np.random.Generator, box: NDArray[np.float64], anchors: Sequence[int]) -> float:
    """Return the side that the box is to get, in pixels (CenterFace's rule)."""
    side = np.sqrt(np.prod(box[2:] - box[:2]))
    nearest = int(np.argmin(np.abs(np.array(anchors) - side)))
    return float(rng.choice(anchors[: min(nearest + 1, _LAST_ANCHOR)]) * 2 ** rng.uniform(-1, 1))


def _around_object(
    rng: np.random.Generator,
    box: NDArray[np.float64],
    target: float,
    image_hw: tuple[int, int],
    input_hw: tuple[int, int],
) -> tuple[NDArray[np.float64], float]:
    """Return centre and scale of a view with the whole object, of side `target`, anywhere in it.

    A view never shows less than a pixel in `_MOST_MAGNIFIED` of the input, nor more than the image twice over.
    """
    ratio = target / float(np.sqrt(np.prod(box[2:] - box[:2])))
    scale = float(np.clip(input_hw[1] / ratio, input_hw[1] / _MOST_MAGNIFIED, 2 * max(image_hw)))
    window = np.array([scale, scale * input_hw[0] / input_hw[1]])
    lowest, highest = box[2:] - window / 2, box[:2] + window / 2  # centres whose view holds the object
    return rng.uniform(np.minimum(lowest, highest), np.maximum(lowest, highest)), scale


def _as_centerface(
    rng: np.random.Generator,
    box: NDArray[np.float64],
    target: float,
    image_hw: tuple[int, int],
    input_hw: tuple[int, int],
) -> tuple[NDArray[np.float64], float]:
    """Return centre and scale as CenterFace's published code draws them, in pixels of the image."""
    ratio = target / float(np.sqrt(np.prod(box[2:] - box[:2])))
    ratio = min(ratio, float(np.sqrt(_CENTERFACE_PIXELS / np.prod(image_hw))))
    height, width = (max(1, int(side * ratio)) for side in image_hw)
    scale = float(max(height, width))
    border = max(1, int(scale * rng.choice((0.1, 0.2, 0.25))))
    border_x, border_y = _border(border, width), _border(border, height)
    center = np.array([rng.integers(border_x, width - border_x), rng.integers(border_y, height - border_y)])
    return center / ratio, scale / ratio


def _border(border: int, size: int) -> int:
    while size - border <= border and border > 0:
        border //= 2
    return border


def _mirror(matrix: Matrix, row: int, size: int) -> Matrix:
    matrix = matrix.copy()
    matrix[row] *= -1
    matrix[row, 2] += size - 1
    return matrix


def warp_boxes(boxes_xyxy: Float32, matrix: Matrix) -> Float32:
    """Return the upright boxes (N,4) around boxes mapped by any affine matrix, float32."""
    x1, y1, x2, y2 = boxes_xyxy.T
    corners = np.stack([x1, y1, x2, y1, x2, y2, x1, y2], 1).reshape(-1, 2)
    mapped = transform_points(corners, matrix).reshape(-1, 4, 2)
    return np.concatenate([mapped.min(1), mapped.max(1)], 1).astype(np.float32)


def warp_objects(objects: Objects, matrix: Matrix, schema: KeypointSchema | None = None) -> Objects:
    """Return the objects mapped by any affine matrix; where it mirrors, key points of pairs change their places."""
    points = objects.keypoints
    if points is not None:
        count = points.shape[1]
        mapped = transform_points(points[..., :2].reshape(-1, 2), matrix).reshape(-1, count, 2)
        points = np.concatenate([mapped, points[..., 2:]], -1).astype(np.float32)
        if schema is not None and np.linalg.det(matrix[:, :2]) < 0:
            points = points[:, schema.mirrored()]
    return Objects(warp_boxes(objects.boxes_xyxy, matrix), objects.labels, points)


def lighting_shift(rng: np.random.Generator, settings: Augment) -> Float32:
    """Return a random BGR colour shift (3,) in units of 0..1 along the principal colours."""
    along = np.array(settings.eigenvalues) * rng.normal(0, settings.lighting, 3)
    return (np.array(settings.eigenvectors) @ along).astype(np.float32)


GRAY = np.array([0.114, 0.587, 0.299])  # of B, G, R: ITU-R BT.601


def color_map(rng: np.random.Generator, image_bgr: NDArray[np.uint8], strength: float, shift: Float32) -> Float32:
    """Return (3,4), the matrix and the shift that change the BGR values of an image, in units of 0..1.

    Brightness, contrast and saturation are scaled by 1 +- strength in random order, then `shift` (3,) is added, as
    "Objects as Points" trains: grey is that of the unchanged image throughout, and nothing clips.
    """
    mean = float(image_bgr.reshape(-1, 3).mean(0) @ GRAY) / 255
    matrix, offset = np.eye(3), np.zeros(3)
    for change in rng.permutation(3):
        alpha = 1 + rng.uniform(-strength, strength)
        matrix, offset = alpha * matrix, alpha * offset
        if change == 1:
            offset = offset + (1 - alpha) * mean
        elif change == 2:
            matrix = matrix + (1 - alpha) * GRAY
    return np.concatenate([matrix, (offset + shift)[:, None]], 1).astype(np.float32)


def jitter_colors(rng: np.random.Generator, image_bgr: NDArray[np.uint8], strength: float) -> NDArray[np.uint8]:
    """Return the image with brightness, contrast and saturation scaled by 1 +- strength, in random order."""
    transform = _color_jitter(strength)
    transform.set_random_seed(int(rng.integers(2**31)))
    rgb = np.ascontiguousarray(image_bgr[..., ::-1])
    jittered: NDArray[np.uint8] = transform(image=rgb)["image"]
    return np.ascontiguousarray(jittered[..., ::-1])


@lru_cache(maxsize=4)
def _color_jitter(strength: float) -> Any:
    # albumentations looks for a newer release on import unless disabled; ctnet opens no connection unasked
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    span = (max(0.0, 1 - strength), 1 + strength)
    return albumentations.ColorJitter(brightness=span, contrast=span, saturation=span, hue=(0, 0), p=1)
